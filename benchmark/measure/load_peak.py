"""LoadPeak: the peak bytes of a device while a model moves to it and its optimizer is built.

The training peak is measured after that. So a model that is loaded in a wider dtype than it trains in shows
in this peak only.
"""

from typing import Any

import torch

from benchmark.measure.live_bytes import LiveBytes
from benchmark.measure.optimizer_state import state_bytes
from benchmark.measure.weights import device_weights, host_weights


class LoadPeak:
    """Context manager around the move and the building of the optimizer; afterwards `bytes` is the peak.

    On a CUDA device it is the allocator's peak. On a CPU, where nothing moves, it counts the weights and
    buffers of `model` and the storages that operations create (LiveBytes).
    """

    def __init__(self, model: torch.nn.Module, device: torch.device) -> None:
        self.bytes = 0
        self._model, self._device = model, device
        self._counter = (
            None
            if device.type == "cuda"
            else LiveBytes(device_weights(model), counted_elsewhere=host_weights(model))
        )

    def __enter__(self) -> "LoadPeak":
        if self._counter is None:
            torch.cuda.init()
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._counter.__enter__()
        return self

    def built(self, optimizer: torch.optim.Optimizer) -> None:
        """Add the state of `optimizer`; call it once, when the optimizer is built.

        On a CPU LiveBytes misses master weights that were created before this context.
        """
        if self._counter is not None:
            state = sum(state_bytes(optimizer)["device"].values())
            self.bytes = sum(tensor.nbytes for tensor in device_weights(self._model)) + state

    def __exit__(self, *error: Any) -> None:
        if self._counter is None:
            self.bytes = torch.cuda.max_memory_allocated(self._device)
        else:
            self._counter.__exit__(None, None, None)
            self.bytes = max(self.bytes, self._counter.peak)
