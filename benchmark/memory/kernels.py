"""What torch allocates otherwise on a CUDA device than on a CPU, for steps simulated on fake CPU tensors.

Optimizers update all tensors of a group at once (foreach), which makes temporaries of the group's size;
dropout keeps one byte an element instead of four and runs inside the attention kernel; autocast does norms,
softmax and losses in fp32. Not simulated: kernels' own workspaces (cuBLAS takes 8 to 32 MiB once) and the
allocator's fragmentation, which is in `reserved`, not in `allocated`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

GRANULARITY = 512
"""Bytes to which torch's CUDA allocator rounds every request."""
FOREACH = ("Adam", "AdamW", "NAdam", "RAdam", "SGD", "Adagrad", "RMSprop")
"""Optimizers of torch.optim whose default on a CUDA device is foreach."""

_IN_FP32: set[Callable[..., Any]] = {
    functional.layer_norm,
    functional.softmax,
    functional.log_softmax,
    functional.cross_entropy,
    functional.mse_loss,
    torch.softmax,
    torch.Tensor.softmax,
    torch.pow,
    torch.Tensor.pow,
    torch.rsqrt,
    torch.sum,
    torch.Tensor.sum,
    torch.cumsum,
    torch.Tensor.cumsum,
}


class AsOnCuda(TorchFunctionMode):
    """Calls of torch's functions allocate as their CUDA kernels do."""

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.backward:
            with self:  # or what a checkpoint recomputes would escape this mode
                return torch.autograd.backward(args[0])
        if func is functional.dropout:
            return _dropout(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            kwargs["dropout_p"] = 0.0  # the kernel keeps a seed, not a mask
        if func in _IN_FP32 and torch.is_autocast_enabled("cpu"):
            args = tuple(_raised(value) for value in args)
        return func(*args, **kwargs)


def use_foreach(optimizer: torch.optim.Optimizer) -> None:
    """Let the optimizer do what it would do by itself on a CUDA device."""
    inner = getattr(optimizer, "_inner", optimizer)
    if type(inner).__name__ in FOREACH:
        for group in optimizer.param_groups:
            group["foreach"] = True


def _dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    if not training or p == 0:
        return input
    return torch.native_dropout(input, p, True)[0]


def _raised(value: Any) -> Any:
    low = (torch.bfloat16, torch.float16)
    return value.float() if isinstance(value, torch.Tensor) and value.dtype in low else value
