"""The weights of a model by where they are: on the device, or in host memory if they are streamed."""

import torch

from benchmark.engine import stream_of
from benchmark.engine.sharded import local


def device_weights(model: torch.nn.Module) -> list[torch.Tensor]:
    """Parameters and buffers on the device; in place of streamed ones the window that they pass through. Of
    what is sharded, the part that is in this process."""
    stream = stream_of(model)
    host = {tensor.untyped_storage()._cdata for tensor in stream.on_host()}
    there = [local(tensor) for tensor in (*model.parameters(), *model.buffers())]
    resident = [tensor for tensor in there if tensor.untyped_storage()._cdata not in host]
    return [*resident, *stream.on_device()]


def host_weights(model: torch.nn.Module) -> list[torch.Tensor]:
    """Streamed weights, which are in host memory."""
    return stream_of(model).on_host()
