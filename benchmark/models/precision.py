"""The precision in which the operations of a model compute, which may differ from that of its weights."""

import contextlib

import torch

AUTOCAST = {"bf16": torch.bfloat16, "bf16_weights": torch.bfloat16, "fp16": torch.float16}
"""RunSpec.precision -> the dtype of operations; of the others, operations compute in the weights' own."""


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which a forward pass on `device` computes as `precision` says."""
    dtype = AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()
