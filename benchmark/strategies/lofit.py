"""LoFiT: attention heads are chosen by learnt scales, then an offset of each chosen head's output trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from benchmark.strategies.base import Card, Options, TuningStrategy
from benchmark.strategies.shared.bottleneck import ATTENTION_OUT, named
from benchmark.strategies.shared.freezing import freeze_pretrained

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from benchmark.engine.update import Update


class LofitOptions(Options):
    """share: of the heads, that is chosen. selection: the share of the steps that learns the scales. l1:
    weight of their absolute sum in the loss. spread: standard deviation of scales and offsets at the
    start."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    selection: Annotated[float, Field(gt=0, lt=1)] = 0.5
    l1: Annotated[float, Field(ge=0)] = 5e-4
    spread: Annotated[float, Field(gt=0)] = 1e-3


class Lofit(TuningStrategy):
    """Both phases are in one run and under one schedule. A new head trains in both. The scales of a head are
    one for each of its numbers; the heads with the largest norm of them are chosen, over all layers."""

    card = Card(
        paper="arXiv 2406.01563",
        reference="section 3 of the paper, whose two phases are runs of their own",
        checked="outputs equal a BERT written out; the chosen heads are the largest, and theirs alone move",
    )

    Options = LofitOptions
    refuses: ClassVar[Mapping[str, str]] = {
        "sharded": "heads are chosen by whole tensors of scales"
    }
    starts_again = "which heads are chosen is in no state_dict"

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        from benchmark.strategies.shared.head_edits import edit

        freeze_pretrained(model)
        heads = model.config.num_attention_heads
        for name in named(model, ATTENTION_OUT, self.name):
            edit(model, name, heads, self.options.spread)
        return model

    def loss(self, model: torch.nn.Module, forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        loss = forward()
        for part in _edits(model):
            if part.scale.requires_grad:
                loss = loss + self.options.l1 * part.scale.abs().sum()
        return loss

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        from benchmark.strategies.shared.head_edits import choose

        optimizer, scheduler = super().optimizer(model, total_steps)
        edits, done = _edits(model), 0
        last = max(1, int(self.options.selection * total_steps))
        for part in edits:
            part.offset.requires_grad_(False)

        def count(*_: Any) -> None:
            nonlocal done
            done += 1
            if done == last:
                choose(edits, self.options.share, self.options.spread)

        optimizer.register_step_post_hook(count)
        return optimizer, scheduler

    def coming_update(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Update:
        """All that has a gradient, but of the offsets only those of the chosen heads."""
        update = super().coming_update(model, optimizer)
        left_out = sum(
            part.offset.numel() - int(part.chosen.sum()) * part.offset.shape[1]
            for part in _edits(model)
            if part.offset.grad is not None
        )
        return dataclasses.replace(update, numel=update.numel - left_out)


def _edits(model: torch.nn.Module) -> list[Any]:
    return [module for name, module in model.named_modules() if name.endswith(".lofit")]
