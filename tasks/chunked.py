"""The loss of a causal LM without its logits, which are computed for a chunk of tokens at a time.

torch's `linear_cross_entropy` (2.13) does this too, but does not fit here: autocast does not reach its
products, the sum of bf16 losses is rounded to bf16 at every addition (off by 2 %), and no counter of memory
sees what it allocates inside. It is the reference in the tests.
"""

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from tasks.base import TaskError

IGNORED = -100
"""The label of a token without a loss, as in torch."""


def token_losses(
    model: PreTrainedModel, targets: torch.Tensor, inputs: dict[str, Any]
) -> torch.Tensor:
    """The cross-entropies (N, A), fp32, of the token ids `targets` (N, A) given what comes before each.

    `model(**inputs)` is called; its last A + 1 positions, the last one aside, predict the targets. The loss
    of a target IGNORED is 0. Raises TaskError for a model whose logits are not its output layer's as they
    are, such as one that scales or caps them.
    """
    layer, hidden = _hidden_states(model, inputs)
    kept = hidden[:, -targets.shape[1] - 1 : -1]
    by_rows = _by_rows(layer)
    if by_rows is not None:
        by_rows.called()
    losses: torch.Tensor = _ChunkedCrossEntropy.apply(
        kept.flatten(0, 1), layer.weight, layer.bias, targets.flatten(), by_rows
    )
    return losses.view_as(targets)


def _by_rows(layer: Any) -> Any:
    """What takes the gradient of the layer's weight by rows, where the engine has put it; None elsewhere."""
    return getattr(layer, "by_rows", None)


def _hidden_states(
    model: PreTrainedModel, inputs: dict[str, Any]
) -> tuple[nn.Linear, torch.Tensor]:
    """The output layer of the model, and what it would read (N, L, F). It computes the logits of no token."""
    layer = model.get_output_embeddings()
    if type(layer) is not nn.Linear and _by_rows(layer) is None:
        kind = "none" if layer is None else type(layer).__name__
        raise TaskError(
            f"loss: chunked needs a linear output layer, and that of {type(model).__name__} is {kind}: "
            "use loss: whole"
        )
    read: list[torch.Tensor] = []
    made: list[torch.Tensor] = []

    def skip(_: nn.Module, arguments: tuple[torch.Tensor]) -> torch.Tensor:
        read.append(arguments[0])
        return arguments[0][:, :0]

    hooks = [
        layer.register_forward_pre_hook(skip),
        layer.register_forward_hook(lambda _, __, logits: made.append(logits)),
    ]
    try:
        logits = model(**inputs, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    if len(read) != 1 or logits is not made[0]:
        raise TaskError(
            f"loss: chunked cannot follow what {type(model).__name__} does to its logits: use loss: whole"
        )
    return layer, read[0]


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The cross-entropy of each token. The backward pass computes the logits again, chunk by chunk.

    A chunk has at most as many logits as there are hidden values, so it grows with neither the vocabulary nor
    the batch. As in the ordinary loss, products are computed in autocast's dtype and the softmax in fp32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        by_rows: Any,
    ) -> torch.Tensor:
        """hidden (T, F), weight (V, F), bias (V,), targets (T,) -> losses (T,), fp32. by_rows: takes the
        weight's gradient in parts, or None."""
        ctx.by_rows = by_rows
        kind = hidden.device.type
        ctx.dtype = (
            torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        )
        ctx.rows = max(1, hidden.numel() // len(weight))
        ctx.save_for_backward(hidden, weight, bias, targets)
        with torch.autocast(kind, enabled=False):
            low, low_bias = _cast(ctx.dtype, weight, bias)
            losses = [
                functional.cross_entropy(
                    _logits(part, low, low_bias), wanted, reduction="none", ignore_index=IGNORED
                )
                for part, wanted in _chunks(ctx.rows, hidden, targets)
            ]
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        by_rows = ctx.needs_input_grad[1] and ctx.by_rows is not None and ctx.by_rows.takes
        whole = ctx.needs_input_grad[1] and not by_rows
        of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight, dtype=ctx.dtype) if whole else None
        of_bias = torch.zeros_like(bias, dtype=torch.float32) if ctx.needs_input_grad[2] else None
        with torch.autocast(hidden.device.type, enabled=False):
            low, low_bias = _cast(ctx.dtype, weight, bias)
            start, sums = 0, []
            for part, wanted, given in _chunks(ctx.rows, hidden, targets, gradients[0]):
                logits = _logits(part, low, low_bias)
                if by_rows:
                    sums.append(logits.logsumexp(-1))
                error = logits.softmax(-1)
                counted = wanted != IGNORED
                right = wanted.where(counted, 0)[:, None]
                error.scatter_add_(1, right, torch.full_like(right, -1, dtype=error.dtype))
                error *= (given * counted)[:, None]
                if of_bias is not None:
                    of_bias += error.sum(0)
                rounded = error.to(ctx.dtype)
                if of_weight is not None:
                    of_weight.addmm_(rounded.T, part.to(ctx.dtype))
                if of_hidden is not None:
                    of_hidden[start : start + len(part)] = rounded @ low
                start += len(part)
            del logits, error, rounded
            if by_rows:
                scale = gradients[0] * (targets != IGNORED)
                ctx.by_rows.take(
                    partial(_rows, ctx.dtype, hidden, weight, bias, targets, scale, torch.cat(sums))
                )
        return (
            of_hidden,
            None if of_weight is None else of_weight.to(weight.dtype),
            None if of_bias is None else of_bias.to(bias.dtype),
            None,
            None,
        )


def _rows(
    dtype: torch.dtype,
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    scale: torch.Tensor,
    sums: torch.Tensor,
    start: int,
    stop: int,
) -> torch.Tensor:
    """The gradient of the weight's rows `start` to `stop` - 1. scale: the gradients of the losses (T,).
    sums: the logarithms of the sums of exponentials of all logits (T,)."""
    low, low_bias = _cast(dtype, weight[start:stop], None if bias is None else bias[start:stop])
    error = (_logits(hidden, low, low_bias) - sums[:, None]).exp_()
    right = targets[:, None] == torch.arange(start, stop, device=targets.device)
    error.sub_(right.to(error.dtype)).mul_(scale[:, None])
    return error.to(dtype).T @ hidden.to(dtype)


def _logits(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The logits in fp32, computed in the dtype of the weight."""
    return functional.linear(hidden.to(weight.dtype), weight, bias).float()


def _cast(
    dtype: torch.dtype, weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    return weight.to(dtype), None if bias is None else bias.to(dtype)


def _chunks(rows: int, *tensors: torch.Tensor) -> "zip[tuple[torch.Tensor, ...]]":
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)
