"""What torch allocates differently on a CUDA device than on a CPU, for steps simulated on fake CPU tensors.

Optimizers update all tensors of a group at once (foreach), with temporaries of the group's size. Dropout
keeps one byte per element instead of four, and runs inside the attention kernel. Autocast computes norms,
softmax and losses in fp32. Not simulated: workspaces of kernels (cuBLAS takes 8 to 32 MiB once) and
fragmentation, which counts as `reserved`, not as `allocated`.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import torch
from torch.nn import functional

GRANULARITY = 512
"""Bytes to which torch's CUDA allocator rounds every request."""
FOREACH = ("Adam", "AdamW", "NAdam", "RAdam", "SGD", "Adagrad", "RMSprop")
"""Optimizers of torch.optim that use foreach by default on a CUDA device."""
IN_FP32 = ("layer_norm", "softmax", "log_softmax", "cross_entropy", "mse_loss")
"""Functions of torch.nn.functional that autocast computes in fp32 on a CUDA device but not on a CPU."""


@contextlib.contextmanager
def as_on_cuda() -> Iterator[None]:
    """Inside this context torch.nn.functional allocates as its CUDA kernels do.

    The functions are replaced, since a torch function mode is not active while a checkpoint recomputes.
    """
    replaced: dict[str, Callable[..., Any]] = {name: _in_fp32(name) for name in IN_FP32}
    replaced["dropout"] = _dropout
    replaced["scaled_dot_product_attention"] = _attention(functional.scaled_dot_product_attention)
    before = {name: getattr(functional, name) for name in replaced}
    try:
        for name, function in replaced.items():
            setattr(functional, name, function)
        yield
    finally:
        for name, function in before.items():
            setattr(functional, name, function)


def use_foreach(optimizer: torch.optim.Optimizer) -> None:
    """Set `foreach` on the optimizers that use it by default on a CUDA device."""
    for part in getattr(optimizer, "parts", [optimizer]):
        wrapped = getattr(part, "wrapped", part)
        if type(wrapped).__name__ in FOREACH:
            for group in part.param_groups:
                group["foreach"] = True


def _dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    if not training or p == 0:
        return input
    return torch.native_dropout(input, p, True)[0]


def _attention(kernel: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The attention without dropout: CUDA's kernel keeps a seed instead of a mask."""

    @wraps(kernel)
    def attention(*args: Any, **kwargs: Any) -> torch.Tensor:
        return kernel(*args, **{**kwargs, "dropout_p": 0.0})

    return attention


def _in_fp32(name: str) -> Callable[..., torch.Tensor]:
    function = getattr(functional, name)

    @wraps(function)
    def raised(input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        low = input.dtype in (torch.bfloat16, torch.float16)
        if low and torch.is_autocast_enabled("cpu"):
            input = input.float()
        result: torch.Tensor = function(input, *args, **kwargs)
        return result

    return raised
