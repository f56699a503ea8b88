"""The window: memory of the device for a few blocks, and the copies between it and their homes.

On a CUDA device one stream of its own makes all copies, behind the computation and in order. Events say when
a copy is complete, and when the block that had the memory before has computed. Its memory is allocated once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmark.engine.homes import Block

WINDOW = 2
"""Blocks in the window: the one that computes and the next one."""


@dataclass(eq=False)
class _Slot:
    """A place for one block, whose weights are `views` of `memory`. shown: the version of each parameter
    whose data is its view, when it was last the same as the home. ready: the last copy, in or out, is done.
    """

    memory: torch.Tensor
    block: Block | None = None
    views: dict[str, torch.Tensor] = field(default_factory=dict)
    shown: dict[str, int] = field(default_factory=dict)
    ready: torch.cuda.Event | None = None


class Window:
    """The window over `blocks`. in_bytes, out_bytes: copied to and from the device so far."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self._slots: list[_Slot] = []  # the least recently used first
        self._copies: torch.cuda.Stream | None = None
        self.in_bytes = self.out_bytes = 0

    def tensors(self) -> list[torch.Tensor]:
        """Its memory."""
        return [slot.memory for slot in self._slots]

    def load(self, wanted: Sequence[Block], device: torch.device) -> None:
        """Begin to copy those of the `wanted` blocks that are not in the window, in place of others."""
        self._make_slots(len(wanted), device)
        for block in wanted:
            slot = next((slot for slot in self._slots if slot.block is block), None)
            if slot is None:
                slot = next(slot for slot in self._slots if slot.block not in wanted)
                self._empty(slot)
                self._copy_in(slot, block)
            self._slots.remove(slot)
            self._slots.append(slot)

    def show(self, block: Block) -> None:
        """Make a loaded block's parameters those in the window, for the stream that computes."""
        slot = next(slot for slot in self._slots if slot.block is block)
        if slot.ready is not None:
            torch.cuda.current_stream(slot.memory.device).wait_event(slot.ready)
        if not slot.shown:
            for name, parameter in block.weights():
                parameter.data = slot.views[name]
                slot.shown[name] = parameter._version

    def write_back(self, names: Iterable[str]) -> None:
        """Begin to copy those of the parameters that are in the window to their homes."""
        changed = set(names)
        for slot in self._slots:
            self._copy_out(slot, [name for name in slot.shown if name in changed])

    def drop(self, block: Block) -> None:
        """Make the block's parameters their homes, complete. Waits for the copies."""
        for slot in self._slots:
            if slot.block is block:
                self._empty(slot)
        if self._copies is not None:
            self._copies.synchronize()

    def _make_slots(self, wanted: int, device: torch.device) -> None:
        """Slots for WINDOW blocks, or for as many as are wanted at once, each as large as the largest."""
        size = max(block.nbytes for block in self._blocks)
        if any(slot.memory.device != device or slot.memory.nbytes < size for slot in self._slots):
            for slot in self._slots:
                self._empty(slot)
            if self._copies is not None:
                self._copies.synchronize()  # the memory may be another tensor's at once
            self._slots = []
        while len(self._slots) < min(max(WINDOW, wanted), len(self._blocks)):
            memory = torch.empty(size, dtype=torch.uint8, device=device)
            self._slots.insert(0, _Slot(memory))

    def _copy_in(self, slot: _Slot, block: Block) -> None:
        slot.block, slot.views = block, dict(block.views(slot.memory))
        with self._behind(slot):
            for name, view in slot.views.items():
                view.copy_(block.homes[name], non_blocking=True)
                self.in_bytes += view.nbytes
            slot.ready = None if self._copies is None else self._copies.record_event()

    def _copy_out(self, slot: _Slot, names: Sequence[str]) -> None:
        if slot.block is None or not names:
            return
        weights = dict(slot.block.weights())
        with self._behind(slot):
            for name in names:
                slot.block.homes[name].copy_(slot.views[name], non_blocking=True)
                slot.shown[name] = weights[name]._version
                self.out_bytes += slot.views[name].nbytes
            slot.ready = None if self._copies is None else self._copies.record_event()

    def _empty(self, slot: _Slot) -> None:
        """What has been written to the parameters since they were last the same as their homes is copied."""
        if slot.block is not None and slot.shown:
            weights = dict(slot.block.weights())
            self._copy_out(slot, [n for n, p in weights.items() if p._version != slot.shown[n]])
            for name, parameter in weights.items():
                parameter.data = slot.block.homes[name]
        slot.block, slot.views, slot.shown, slot.ready = None, {}, {}, None

    def _behind(self, slot: _Slot) -> Any:
        """Context whose copies are made behind the computation, after what computes now."""
        if not slot.memory.is_cuda:
            return nullcontext()
        if self._copies is None:
            self._copies = torch.cuda.Stream(slot.memory.device)
        self._copies.wait_stream(torch.cuda.current_stream(slot.memory.device))
        # a copy may be under way when the window is dropped
        slot.memory.record_stream(self._copies)
        return torch.cuda.stream(self._copies)
