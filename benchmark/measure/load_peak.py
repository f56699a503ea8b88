"""LoadPeak: what a device holds at most while a model moves there and its optimizer is built.

Training peaks begin after that, so a model that arrives in a wider type than it trains in shows here alone.
"""

from typing import Any

import torch

from benchmark.measure.live_bytes import LiveBytes
from benchmark.measure.optimizer_state import state_bytes


class LoadPeak:
    """Context manager around the move and the optimizer; `bytes` afterwards is the peak on `device`.

    The allocator's on a CUDA device. On a CPU, to which nothing moves: the weights and buffers that `model`
    has at the start, and what operations make of them (LiveBytes).
    """

    def __init__(self, model: torch.nn.Module, device: torch.device) -> None:
        self.bytes = 0
        self._model, self._device = model, device
        self._counter = None if device.type == "cuda" else LiveBytes(_weights(model))

    def __enter__(self) -> "LoadPeak":
        if self._counter is None:
            torch.cuda.init()
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._counter.__enter__()
        return self

    def built(self, optimizer: torch.optim.Optimizer) -> None:
        """Count what the optimizer holds by now. On a CPU no operation shows a master weight that was made
        before and is on the device from now on."""
        if self._counter is not None:
            held = sum(state_bytes(optimizer)["device"].values())
            self.bytes = sum(tensor.nbytes for tensor in _weights(self._model)) + held

    def __exit__(self, *error: Any) -> None:
        if self._counter is None:
            self.bytes = torch.cuda.max_memory_allocated(self._device)
        else:
            self._counter.__exit__(None, None, None)
            self.bytes = max(self.bytes, self._counter.peak)


def _weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]
