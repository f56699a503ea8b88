"""TrainedParameters: which parameters a training changes, how many a step, and whether they have moved."""

import statistics
from collections.abc import Iterable
from typing import Any, Protocol

import torch

from benchmark.engine.update import Update
from benchmark.measure.canary import Canary
from benchmark.records.record import Params


class Method(Protocol):
    """What a fine-tuning method tells about its steps, such as a `TuningStrategy`."""

    def coming_update(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Update:
        """What the next step of `optimizer` changes, asked after the backward pass."""

    def set_back(self, model: torch.nn.Module) -> Iterable[torch.nn.Parameter]:
        """Parameters that the training has set back to their start on purpose."""


class TrainedParameters:
    """Counts of the parameters of `model`; `total` includes those packed into fewer numbers."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.total = sum(p.numel() for p in model.parameters())
        self.total += sum(getattr(module, "packed_numel", 0) for module in model.modules())
        self._model = model
        self._canary: Canary | None = None
        self._ratios: list[float] = []
        self._ever: dict[
            tuple[int, tuple[int, int] | None], int
        ] = {}  # what trained -> its numbers
        self._part = 0
        self._unmoved: list[str] = []

    def begin(self) -> None:
        """Remember the values before training, for the canary."""
        self._canary = Canary(self._model)

    def add(self, update: Update) -> float:
        """Count the coming update. Returns the ratio of the parameters that it trains."""
        assert self._canary is not None
        self._canary.claim(update.parameters, update.norms, update.rate)
        apart = update.rows or [None] * len(update.parameters)
        sizes = {
            (id(p), rows): p.numel() if rows is None else p.numel() // len(p) * (rows[1] - rows[0])
            for p, rows in zip(update.parameters, apart, strict=True)
        }
        self._ever |= sizes
        if update.numel < sum(sizes.values()):  # a mask or a projection
            self._part = max(self._part, update.numel)
        self._ratios.append(update.numel / self.total)
        return self._ratios[-1]

    def end(self, set_back: Iterable[torch.nn.Parameter]) -> None:
        """Compare with the values before training. Raises Unmoved (see `Canary.check`)."""
        assert self._canary is not None
        self._canary.excuse(set_back)
        self._unmoved = self._canary.unmoved()
        self._canary.check()

    def state_dict(self) -> dict[str, Any]:
        """The counts so far, and what the canary watches; parameters by name."""
        assert self._canary is not None
        names = {id(p): name for name, p in self._model.named_parameters()}
        return {
            "ratios": self._ratios,
            "ever": [(names[key], rows, size) for (key, rows), size in self._ever.items()],
            "part": self._part,
            "claimed": self._canary.claimed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict()`."""
        assert self._canary is not None
        named = dict(self._model.named_parameters())
        self._ratios, self._part = list(state["ratios"]), state["part"]
        self._ever = {(id(named[name]), rows): size for name, rows, size in state["ever"]}
        self._canary.claimed = state["claimed"]

    def params(self, groups: int) -> Params:
        """The counts for the record of a run whose optimizer has `groups` groups."""
        ratios = self._ratios or [0.0]
        return Params(
            total=self.total,
            trainable_ever=self._part or sum(self._ever.values()),
            trainable_peak_per_step=round(max(ratios) * self.total),
            ratio_peak=max(ratios),
            ratio_mean=statistics.fmean(ratios),
            groups=groups,
            unmoved=self._unmoved,
        )
