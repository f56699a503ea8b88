"""MuonAndAdamW: torch's Muon for some matrices and AdamW for all else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmark.strategies.rules.closure import run_closure


class MuonAndAdamW(torch.optim.Optimizer):
    """The parameter groups are Muon's and then AdamW's; the two share one state by parameter."""

    def __init__(self, muon: torch.optim.Optimizer, adamw: torch.optim.Optimizer) -> None:
        self.parts: Sequence[torch.optim.Optimizer] = (muon, adamw)
        self._muons = len(muon.param_groups)
        super().__init__([*muon.param_groups, *adamw.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        result = run_closure(closure)
        groups = self.param_groups[: self._muons], self.param_groups[self._muons :]
        for part, own in zip(self.parts, groups, strict=True):
            part.param_groups, part.state = own, self.state  # `load_state_dict` makes new ones
            part.step()
        return result
