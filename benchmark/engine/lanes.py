"""Lanes: copies from host memory to the device and back that run behind the computation.

On a CUDA device either direction has a stream of its own; the host waits until at most `IN_FLIGHT` entries
have not been taken back. On any other device a copy is done when the call returns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch

from benchmark.engine.offload import Entry

IN_FLIGHT = 2


class Lanes:
    """A CUDA stream for either direction, once a parameter on such a device visits."""

    def __init__(self) -> None:
        self._inward: torch.cuda.Stream | None = None
        self._outward: torch.cuda.Stream | None = None
        self._leaving: deque[torch.cuda.Event] = deque()

    def bring(self, parameter: torch.Tensor, bring: Callable[[], Entry]) -> Entry:
        """What `bring` copies to the device, there before the stream that computes goes on."""
        if not parameter.is_cuda:
            return bring()
        if self._inward is None:
            self._inward = torch.cuda.Stream(parameter.device)
            self._outward = torch.cuda.Stream(parameter.device)
        if len(self._leaving) == IN_FLIGHT:
            self._leaving.popleft().synchronize()
        compute = torch.cuda.current_stream(parameter.device)
        with torch.cuda.stream(self._inward):
            came = bring()
        compute.wait_stream(self._inward)
        _used_on(compute, came)
        return came

    def take_back(self, parameter: torch.Tensor, went: Entry, take: Callable[[], None]) -> None:
        """Let `take` copy `went` to the host, after what computes it."""
        if self._outward is None or not parameter.is_cuda:
            take()
            return
        self._outward.wait_stream(torch.cuda.current_stream(parameter.device))
        with torch.cuda.stream(self._outward):
            take()
            _used_on(self._outward, went)
            self._leaving.append(self._outward.record_event())

    def turn(self) -> None:
        """Let nothing arrive before what has been taken back until now is in host memory."""
        if self._inward is not None and self._outward is not None:
            self._inward.wait_stream(self._outward)

    def wait(self) -> None:
        """Wait on the host until it has what was taken back."""
        if self._outward is not None:
            self._outward.synchronize()


def _used_on(stream: torch.cuda.Stream, entry: Entry) -> None:
    """The caching allocator must not hand the memory out before `stream` is done with it."""
    for value in entry.values():
        if isinstance(value, torch.Tensor) and value.is_cuda:
            value.record_stream(stream)
