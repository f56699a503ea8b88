"""What a model's operations compute in while its weights are fp32."""

import contextlib

import torch

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""RunSpec.precision -> the dtype of operations; of the others, operations compute in the weights' own."""


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which a forward pass on `device` computes as `precision` says."""
    dtype = AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()
