"""Timeline: every allocation and release of a step in order, with the kind of each storage.

The kind of a storage (a gradient, an activation kept for the backward pass) is often known only later in the
step. So the bytes by kind at any moment are computed after the step.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch

from benchmark.measure.live_bytes import LiveBytes


@dataclass(eq=False)
class _Block:
    size: int
    kind: str = "temporaries"


class Timeline(LiveBytes):
    """`resident`: the tensors alive from the start, by kind. `base`: bytes by kind that are counted as they
    are; the tensors `counted_elsewhere` are part of them. `granularity`: an allocator's smallest unit, in
    bytes."""

    def __init__(
        self,
        resident: Mapping[str, Iterable[torch.Tensor]],
        counted_elsewhere: Iterable[torch.Tensor] = (),
        base: Mapping[str, int] | None = None,
        *,
        granularity: int = 1,
    ) -> None:
        self._base = dict(base or {})
        self._granularity = granularity
        self._blocks: dict[int, _Block] = {}
        self._events: list[tuple[_Block, int]] = []
        self._phases: list[tuple[int, str]] = []
        super().__init__((), counted_elsewhere, sum(self._base.values()))
        for kind, tensors in resident.items():
            for tensor in tensors:
                self._track(tensor)
                self.mark(tensor, kind)

    def phase(self, name: str) -> None:
        """Begin the phase `name`."""
        self._phases.append((len(self._events), name))

    def mark(self, tensor: torch.Tensor, kind: str) -> None:
        """Set the kind of the tensor's storage if it has none yet."""
        block = self._blocks.get(tensor.untyped_storage()._cdata)
        if block is not None and block.kind == "temporaries":
            block.kind = kind

    def mark_alive(self, kind: str) -> None:
        """Set the kind of every live storage that has none yet."""
        for block in self._blocks.values():
            if block.kind == "temporaries":
                block.kind = kind

    def worst(self) -> tuple[str, dict[str, int]]:
        """The phase and the bytes by kind at the peak; of equal peaks the first."""
        total = most = sum(self._base.values())
        at = 0
        for index, (block, sign) in enumerate(self._events, start=1):
            total += sign * block.size
            if total > most:
                most, at = total, index
        phase = [name for start, name in self._phases if start < at or start == 0]
        return (phase or [""])[-1], self.split(at)

    def phases(self) -> dict[str, dict[str, int]]:
        """The bytes by kind at the peak of each phase, what the phase found there included."""
        starts = [start for start, _ in self._phases]
        totals = list(
            accumulate(
                (sign * block.size for block, sign in self._events),
                initial=sum(self._base.values()),
            )
        )
        ends = [*starts[1:], len(self._events)]
        return {
            name: self.split(max(range(start, end + 1), key=totals.__getitem__))
            for (start, name), end in zip(self._phases, ends, strict=True)
        }

    def split(self, events: int | None = None) -> dict[str, int]:
        """Bytes by kind after the first `events` allocations and releases (default: all so far)."""
        bytes_of = dict(self._base)
        for block, sign in self._events[:events]:
            bytes_of[block.kind] = bytes_of.get(block.kind, 0) + sign * block.size
        return bytes_of

    def _track(self, tensor: torch.Tensor, size: int | None = None) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._blocks:
            return
        if size is None:
            size = -(-storage.nbytes() // self._granularity) * self._granularity
        block = self._blocks[storage._cdata] = _Block(size)
        self._events.append((block, 1))
        super()._track(tensor, size)

    def _free(self, key: int) -> None:
        super()._free(key)
        self._events.append((self._blocks.pop(key), -1))
