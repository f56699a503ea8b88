"""TuningStrategy: the interface of a fine-tuning method. It knows models and optimizers, not tasks or loops.

Lightning's `Trainer(strategy=)` is something else: it means DDP or FSDP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel

from benchmark.records.spec import Strict
from benchmark.strategies.settings import TrainingSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from benchmark.engine.update import Update
    from benchmark.models.layers import Layers


class Options(Strict):
    """A strategy's own options. Their defaults never change, since a spec's hash leaves them out (see
    RunSpec)."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Where a method comes from. paper: arXiv number or URL. reference: what the implementation follows, such
    as a package or a repository and its files. checked: what it was held against."""

    paper: str
    reference: str
    checked: str


class TuningStrategy:
    """One method: which parameters train, and with which optimizer and learning rate.

    Use `benchmark.strategies.build`, which checks the settings and options.
    """

    Options: type[BaseModel] = Options
    card: ClassVar[Card]
    trains = True
    """Whether the strategy takes training steps. If not, its spec has no learning rate and no steps."""
    precisions: tuple[str, ...] = ("fp32", "bf16", "fp16", "bf16_weights")
    optimizers: ClassVar[tuple[str, ...] | None] = None
    """The optimizers it works with; None for all. Empty for a method with an update rule of its own, which
    does not use the setting `optimizer`."""
    refuses: ClassVar[Mapping[str, str]] = {}
    """What the method cannot do, of `compatibility.FEATURES` -> the reason, and what works instead."""
    needs_answers = False
    """Whether it trains only on tasks in which a model answers after a prompt."""
    recomputes = False
    """Whether its optimizer does activation checkpointing; else the loop makes every block recompute."""
    starts_again: ClassVar[str | None] = None
    """Why a training that is broken off cannot go on from a checkpoint; None if it can. A checkpoint has the
    weights, the optimizer's and the scheduler's `state_dict` and torch's and Python's generators."""

    def __init__(self, settings: TrainingSettings, options: BaseModel) -> None:
        self.settings = settings
        self.options: Any = options

    @classmethod
    def refused(cls, options: Any) -> Mapping[str, str]:
        """What the method cannot do with these options, as `refuses`; precisions and optimizers may be among
        it."""
        return cls.refuses

    @property
    def name(self) -> str:
        """The strategy's name in STRATEGIES, which is that of its file."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def added_positions(self) -> int:
        """The positions of the model that the method takes from every input."""
        return 0

    def check(self) -> None:
        """Raises UserError for option values that the optimizer class refuses. It needs no model, but imports
        torch."""
        from benchmark.engine.wrapped import check_values

        if self.trains:
            check_values(self.settings.optimizer, self.settings.optimizer_arguments)

    def check_layers(self, layers: Layers) -> None:
        """Raises UserError for options that no model with these layers can have. No torch is imported."""

    def prepared(self, model: PreTrainedModel) -> PreTrainedModel:
        """The model to train, in the precision of the settings; `model` itself is changed.

        In bf16_weights the pretrained weights are cast to bf16. What trains beside frozen weights, such as an
        adapter or a new head, is fp32; where nothing is frozen, all is bf16. `model` is on the host, and the
        device never holds its fp32 weights. The returned model moves to the device before `optimizer` is
        called.
        """
        import torch

        if self.settings.precision != "bf16_weights":
            return self.prepare(model)
        model = self.prepare(model.to(torch.bfloat16))  # type: ignore[arg-type]
        parameters = list(model.parameters())
        if not all(parameter.requires_grad for parameter in parameters):
            for parameter in parameters:
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
        return model

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        """`model` with parameters frozen, wrapped or cast. By default all parameters train. A loop calls
        `prepared`."""
        return model

    def batch(self, batch: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """The micro-batch that the model trains on, made of the task's; by default the same."""
        return batch

    def loss(self, model: torch.nn.Module, forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The loss of a micro-batch, a scalar on which the loop calls backward; by default `forward()`.

        `forward` computes the loss of the micro-batch with the weights as they are, and can be called again.
        """
        return forward()

    def rates(self, model: torch.nn.Module) -> Mapping[str, float]:
        """The learning rates of parameters, by name, over that of the settings. Those left out have it."""
        return {}

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """The optimizer of the trainable parameters, and its scheduler, which steps once per optimizer
        step."""
        from benchmark.engine.wrapped import all_at_once

        settings = self.settings
        optimizer: Any = all_at_once(
            model,
            settings.optimizer,
            weight_decay=settings.weight_decay,
            rates=self.rates(model),
            **settings.optimizer_arguments,
        )
        # A fused kernel unscales fp16 gradients itself, after clipping, so Lightning refuses to clip.
        # With False here GradScaler unscales them before clipping, as for any other optimizer.
        optimizer._step_supports_amp_scaling = False
        return optimizer, self.scheduler(optimizer, total_steps)

    def coming_update(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Update:
        """What the next step of `optimizer` changes, asked after the backward pass."""
        from benchmark.engine.update import coming_update

        return coming_update(model, optimizer)

    def set_back(self, model: torch.nn.Module) -> Iterable[torch.nn.Parameter]:
        """Parameters that the training has set back to their start on purpose; by default none."""
        return ()

    def scheduler(
        self, optimizer: torch.optim.Optimizer, total_steps: int
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule of the settings for all parameter groups of `optimizer`."""
        import torch

        from benchmark.engine import Rate

        settings = self.settings
        rate = Rate(settings.schedule, total_steps, 1, settings.warmup_steps(total_steps))
        return torch.optim.lr_scheduler.LambdaLR(optimizer, rate.factor)

    def decay_groups(
        self, model: torch.nn.Module, without: Iterable[torch.nn.Parameter] = ()
    ) -> list[dict[str, Any]]:
        """Parameter groups of all trainable parameters but `without`: weight decay on matrices, none on
        norms and biases."""
        left_out = set(map(id, without))
        own = [p for p in model.parameters() if p.requires_grad and id(p) not in left_out]
        groups = [
            {"params": [p for p in own if p.ndim >= 2], "weight_decay": self.settings.weight_decay},
            {"params": [p for p in own if p.ndim < 2], "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]
