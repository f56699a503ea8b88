"""Nf4Linear: a linear layer whose frozen weights are 4-bit NormalFloat numbers (QLoRA, arXiv 2305.14314)."""

from typing import Any

import torch
from bitsandbytes import matmul_4bit
from bitsandbytes.functional import QuantState, quantize_4bit
from torch import nn

BLOCK, NESTED_BLOCK = 64, 256
"""Weights that share a scale, and scales that share one: the paper's."""


class Nf4Linear(nn.Linear):
    """x W^T + b, with W unpacked by bitsandbytes for the product, and again in the backward pass.

    The packed weights and their scales are buffers, since bitsandbytes' own Linear4bit keeps the scales where
    neither `parameters()` nor `buffers()` shows them, and has no fake tensors. packed_numel: the number of
    weights packed in them.
    """

    def __init__(self, weight: torch.Tensor, bias: nn.Parameter | None, double: bool) -> None:
        """`weight` (out, in). double: the scales are 8-bit numbers, with a scale for each 256 of them."""
        nn.Module.__init__(self)
        self.out_features, self.in_features = weight.shape
        self.packed_numel, self._dtype, self._double = weight.numel(), weight.dtype, double
        packed, state = quantize_4bit(
            weight.detach().contiguous(),
            blocksize=BLOCK,
            compress_statistics=double,
            quant_type="nf4",
        )
        tensors = {"weight": packed, "scales": state.absmax, "code": state.code}
        if double:
            nested = {"nested_scales": state.state2.absmax, "nested_code": state.state2.code}
            tensors |= nested | {"offset": state.offset}
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
        self.register_parameter("bias", bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        device = inputs.device.type
        if torch.is_autocast_enabled(device):  # which does not reach into the package's operation
            inputs = inputs.to(torch.get_autocast_dtype(device))
        bias = None if self.bias is None else self.bias.to(inputs.dtype)
        product: Any = matmul_4bit(inputs, self.weight.t(), self._state(), bias=bias)
        return product

    def _state(self) -> Any:
        nested = None
        if self._double:
            nested = QuantState(
                absmax=self.nested_scales,
                code=self.nested_code,
                blocksize=NESTED_BLOCK,
                dtype=torch.float32,
            )
        return QuantState(
            absmax=self.scales,
            shape=torch.Size((self.out_features, self.in_features)),
            code=self.code,
            blocksize=BLOCK,
            quant_type="nf4",
            dtype=self._dtype,
            offset=self.offset if self._double else None,
            state2=nested,
        )
