"""Gradients by rows: those of a large matrix, made and used up some rows at a time inside the backward pass.

Autograd makes a gradient whole: that of LLaMA-7B's head has 262 MB in bf16. A layer that is wrapped here
offers instead to compute any of its rows when they are asked for. The products are those of torch's own
backward pass, in parts; only the order of the sums inside a product may differ, where a kernel cuts a part
otherwise than the whole.

A matrix that several layers share, or whose layer is called more than once in a step, gets its gradient from
autograd, which adds up what the calls contribute.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from benchmark.engine.blocks import Wrapper, unwrap, wrap

MARK = "by_rows"
"""The attribute of a wrapped layer that has its `ByRows`."""
Rows = Callable[[int, int], torch.Tensor]
"""(start, stop) -> the rows start to stop - 1 of a gradient (stop - start, ...)."""


class Taker(Protocol):
    """Who uses a gradient up."""

    def take_rows(self, name: str, rows: Rows) -> None:
        """Use up the gradient of the parameter `name`."""


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of `model` that can make the gradient of their weight by rows, by the weight's name.

    They are linear layers, GPT-2's transposed ones and embeddings, each of exactly that class, that share it
    with no other.
    """
    users = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    found = {f"{path}.weight": m for path, m in model.named_modules() if _is_offered(m)}
    return {name: m for name, m in found.items() if users[id(m._parameters["weight"])] == 1}


class ByRows(Wrapper):
    """Around the layer that has the parameter `name`. taker: gets the gradient; it is not kept alive."""

    def __init__(self, layer: nn.Module, name: str, taker: Taker) -> None:
        self._layer, self._name = weakref.ref(layer), name
        self._taker = weakref.ref(taker)
        self._calls = 0
        wrap(layer, MARK, self)

    def remove(self) -> None:
        """Restore the class of the layer."""
        layer = self._layer()
        if layer is not None and vars(layer).get(MARK) is self:
            unwrap(layer, MARK)

    def end_step(self) -> None:
        """Count the layer's calls anew."""
        self._calls = 0

    def called(self) -> None:
        """The loss is going to depend on the layer's weight once more. A block that computes again in the
        backward pass counts once."""
        layer: Any = self._layer()
        if torch.is_grad_enabled() and layer.weight.requires_grad:
            self._calls += torch._C._current_graph_task_id() == -1

    @property
    def takes(self) -> bool:
        """Whether `take` may be called, asked in the backward pass; if not, the gradient is made whole."""
        return self._taker() is not None and self._calls == 1

    def take(self, rows: Rows) -> None:
        """Hand the gradient over, called in the backward pass. The weight changes as it is used up."""
        taker = self._taker()
        assert taker is not None
        taker.take_rows(self._name, rows)

    def forward(
        self, block: nn.Module, run: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        layer: Any = block
        given = args[0] if args else None
        if given is None or kwargs or not torch.is_grad_enabled() or not layer.weight.requires_grad:
            return run(*args, **kwargs)
        if not given.numel():
            return run(*args)
        self.called()
        if isinstance(layer, nn.Embedding):
            return _Lookup.apply(given, layer.weight, layer.padding_idx, self)
        kind = given.device.type
        autocast = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if autocast else given.dtype
        return _Product.apply(
            given, layer.weight, layer.bias, dtype, isinstance(layer, nn.Linear), self
        )


class _Product(torch.autograd.Function):
    """A linear layer, computed in `dtype` as under autocast. transposed: its weight is (out, in), else
    (in, out)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        dtype: torch.dtype,
        transposed: bool,
        by_rows: ByRows,
    ) -> torch.Tensor:
        low = x.to(dtype)
        ctx.kinds = x.dtype, None if bias is None else bias.dtype
        ctx.transposed, ctx.by_rows = transposed, by_rows
        ctx.save_for_backward(low, weight)
        own, offset = weight.to(dtype), None if bias is None else bias.to(dtype)
        with torch.autocast(x.device.type, enabled=False):
            if transposed:
                return functional.linear(low, own, offset)
            flat = low.reshape(-1, low.shape[-1])
            made = flat @ own if offset is None else torch.addmm(offset, flat, own)
            return made.view(*low.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        low, weight = ctx.saved_tensors
        of_output = gradient.reshape(-1, gradient.shape[-1])
        x = low.reshape(-1, low.shape[-1])
        of_input = of_weight = of_bias = None
        with torch.autocast(x.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                own = weight.to(low.dtype)
                of_x = of_output @ (own if ctx.transposed else own.T)
                of_input = of_x.view_as(low).to(ctx.kinds[0])
            if ctx.needs_input_grad[2]:
                of_bias = of_output.sum(0).to(ctx.kinds[1])
            if ctx.needs_input_grad[1]:
                left, right = (of_output, x) if ctx.transposed else (x, of_output)

                def rows(start: int, stop: int) -> torch.Tensor:
                    return left[:, start:stop].T @ right

                of_weight = _given(ctx.by_rows, rows, weight)
        return of_input, of_weight, of_bias, None, None, None


class _Lookup(torch.autograd.Function):
    """An embedding."""

    @staticmethod
    def forward(
        ctx: Any, ids: torch.Tensor, weight: torch.Tensor, padding: int | None, by_rows: ByRows
    ) -> torch.Tensor:
        ctx.padding, ctx.by_rows = padding, by_rows
        ctx.save_for_backward(ids, weight)
        return functional.embedding(ids, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        ids, weight = ctx.saved_tensors

        def rows(start: int, stop: int) -> torch.Tensor:
            other = (ids < start) | (ids >= stop)
            if ctx.padding is not None:
                other = other | (ids == ctx.padding)
            trash = stop - start  # one row more, which gets what belongs to no row asked for
            at = (ids - start).masked_fill(other, trash)
            made = torch.ops.aten.embedding_dense_backward(gradient, at, trash + 1, trash, False)
            return made[:trash]

        return None, _given(ctx.by_rows, rows, weight), None, None


def _given(by_rows: ByRows, rows: Rows, weight: torch.Tensor) -> torch.Tensor | None:
    """The gradient of `weight` for autograd; None if it has been used up by rows."""
    if not by_rows.takes:
        return rows(0, len(weight)).to(weight.dtype)
    by_rows.take(rows)
    return None


def _is_offered(module: nn.Module) -> bool:
    if type(module) is nn.Embedding:
        return module.max_norm is None and not module.scale_grad_by_freq and not module.sparse
    return type(module) is nn.Linear or (
        type(module).__name__ == "Conv1D"
        and type(module).__module__ == "transformers.pytorch_utils"
    )
