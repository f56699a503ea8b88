"""Muon: momentum made orthogonal, for the matrices of the blocks (arXiv 2502.16982)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from benchmark.strategies.base import Card, Options, TuningStrategy
from benchmark.strategies.shared.matrices import block_matrices

if TYPE_CHECKING:
    import torch


class MuonOptions(Options):
    """momentum, nesterov and ns_steps (of the Newton-Schulz iteration) are those of torch.optim.Muon.

    adjust: match_rms_adamw scales its update so that a rate of AdamW fits it, as in arXiv 2502.16982;
    original is Muon's first code.
    """

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    nesterov: bool = True
    ns_steps: Annotated[int, Field(ge=1, lt=100)] = 5
    adjust: Literal["match_rms_adamw", "original"] = "match_rms_adamw"


class Muon(TuningStrategy):
    """All parameters train. Embeddings, head, norms and biases train with AdamW, at the same rate."""

    card = Card(
        paper="arXiv 2502.16982",
        reference="torch.optim.Muon and torch.optim.AdamW; the split as in github.com/KellerJordan/Muon",
        checked="weights after 10 steps are those of the two optimizers stepped by hand, bit for bit",
    )

    Options = MuonOptions
    refuses: ClassVar[Mapping[str, str]] = {"sharded": "its update is of whole matrices"}
    optimizers = ()

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        import torch

        from benchmark.strategies.rules.muon import MuonAndAdamW

        assert self.settings.lr is not None
        matrices = list(block_matrices(model).values())
        muon = torch.optim.Muon(
            matrices,
            lr=self.settings.lr,
            weight_decay=self.settings.weight_decay,
            momentum=self.options.momentum,
            nesterov=self.options.nesterov,
            ns_steps=self.options.ns_steps,
            adjust_lr_fn=self.options.adjust,
        )
        others = self.decay_groups(model, without=matrices)
        rule = MuonAndAdamW(muon, torch.optim.AdamW(others, lr=self.settings.lr))
        return rule, self.scheduler(rule, total_steps)
