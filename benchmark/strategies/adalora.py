"""AdaLoRA through peft: low-rank updates in SVD form, whose ranks are cut to a budget as training goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, model_validator

from benchmark.strategies.base import Card, Options
from benchmark.strategies.lora import check_rank
from benchmark.strategies.shared.peft_method import PeftMethod, targets_of, task_type, transposed

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig
    from transformers import PreTrainedModel


class AdaloraOptions(Options):
    """initial_r, target_r: mean rank of an update at the start and at the end. alpha, dropout: as in LoRA.
    start, final: the shares of the steps before the first cut and after the last. interval: steps between
    cuts. orthogonality: the weight of the regularisation. targets: names of the adapted modules; by default
    peft's choice for the model family."""

    initial_r: Annotated[int, Field(ge=1)] = 12
    target_r: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    start: Annotated[float, Field(ge=0, lt=1)] = 0.1
    final: Annotated[float, Field(ge=0, lt=1)] = 0.3
    interval: Annotated[int, Field(ge=1)] = 1
    orthogonality: Annotated[float, Field(ge=0)] = 0.5
    targets: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> AdaloraOptions:
        if self.target_r >= self.initial_r:
            raise ValueError("target_r must be less than initial_r")
        if self.start + self.final >= 1:
            raise ValueError("start and final together must be less than 1")
        return self


class Adalora(PeftMethod):
    """`AdaLoraConfig`, with `update_and_allocate` after every optimizer step, while the gradients are there.

    peft adds the orthogonal regularisation to the loss that the model computes, in evaluation too, and not at
    all for tasks that compute their own. Here it is 0 in the model, and `loss` adds it for every task.
    """

    card = Card(
        paper="arXiv 2303.10512",
        reference="peft.AdaLoraConfig, whose regularisation is the mean norm without a square",
        checked="losses, ranks and weights of 12 steps equal a loop written with peft alone",
    )

    Options = AdaloraOptions
    refuses: ClassVar[Mapping[str, str]] = {
        "sharded": "its ranks and its regularisation are of whole matrices"
    }
    starts_again = "peft's rank allocator and the ranks that it has cut are in no state_dict"

    def config(self, model: PreTrainedModel) -> PeftConfig:
        from peft import AdaLoraConfig

        options: AdaloraOptions = self.options
        scale: Any = options.alpha  # peft annotates it as int, but takes a float
        return AdaLoraConfig(
            task_type=task_type(model),
            init_r=options.initial_r,
            target_r=options.target_r,
            lora_alpha=scale,
            lora_dropout=options.dropout,
            deltaT=options.interval,
            orth_reg_weight=0.0,
            total_step=1,  # `optimizer` knows it
            **targets_of(options),
            **transposed(model),
        )

    def check_wrapped(self, model: Any) -> None:
        check_rank(self, model, self.options.initial_r, "initial_r")

    def loss(self, model: torch.nn.Module, forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The task's loss, and the mean over the singular matrices of their distance from orthogonality."""
        import torch

        distances = []
        for name, matrix in model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                product = matrix @ matrix.T if ".lora_A." in name else matrix.T @ matrix
                distances.append(torch.norm(product - torch.eye(len(product)).to(product)))
        return forward() + self.options.orthogonality * torch.stack(distances).mean()

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        wrapped: Any = model
        config = wrapped.peft_config["default"]
        config.total_step = total_steps
        config.tinit = int(self.options.start * total_steps)
        config.tfinal = int(self.options.final * total_steps)
        optimizer, scheduler = super().optimizer(model, total_steps)
        allocator, names = wrapped.base_model.rankallocator, _names(wrapped)
        done = 0

        def allocate(*_: Any) -> None:
            nonlocal done
            wrapped.base_model.update_and_allocate(done)
            done += 1
            for name, parameter in names.items():  # the importances count as optimizer state
                for kind in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
                    of_kind = getattr(allocator, kind)
                    if name in of_kind:
                        optimizer.state[parameter][kind] = of_kind[name]
                    else:
                        optimizer.state[parameter].pop(kind, None)

        optimizer.register_step_post_hook(allocate)
        return optimizer, scheduler

    def set_back(self, model: torch.nn.Module) -> list[torch.nn.Parameter]:
        """The singular values of which none is kept; they are zeros again, as at the start."""
        wrapped: Any = model
        kept = wrapped.peft_config["default"].rank_pattern or {}
        return [p for n, p in _names(wrapped).items() if n in kept and not any(kept[n])]


def _names(wrapped: Any) -> dict[str, torch.nn.Parameter]:
    """The parameters of the updates, by the names that peft's rank allocator has for them."""
    return {n: p for n, p in wrapped.base_model.model.named_parameters() if "lora_" in n}
