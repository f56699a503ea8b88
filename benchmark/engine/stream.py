"""Streamed weights: those of the blocks are in host memory, and a window of them is on the device.

A block's weights are copied into the window before its forward pass, and once more for its backward pass,
whose graph refers to them instead of keeping them (`references.py`). While one block computes, the next one
in the direction of the pass is copied. What needs no gradient is streamed in the forward pass alone. The
weights that a step has updated are copied back. A parameter's data is its tensor in host memory, except while
its block computes or is updated, so a state dict has whole weights at any time. Activations are stored, or
recomputed (`activations.py`), as those of a resident model. What has no home in host memory
(`homes.py`) stays on the device: embeddings and head, tied or not, norms outside the blocks, weights that
blocks share, and all buffers.

Bytes copied by a step of one micro-batch, for n blocks of B bytes and a window of w < n, where l is the
lowest block (from 0) that is in the graph, n if none is, and l' that of the step before:

    to the device: B · (n - h + max(0, n - w - l)),  h = max(0, w - min(l', n - w)), 0 in the first step
    to the host: the updated weights of blocks

The forward pass finds the h blocks that the step before left there, and the backward pass the last w.

Under autocast the graph keeps a cast copy of each weight, unless its block recomputes.

Without an accelerator the window is memory of its own all the same, so that what is on the device can be
counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_iter

from benchmark.engine.blocks import Wrapper, unwrap, wrap
from benchmark.engine.homes import Block, at, find_blocks, places_in
from benchmark.engine.references import saved_by_reference
from benchmark.engine.window import Window
from benchmark.errors import UserError, nearest

KINDS = ("resident", "stream")
MARK = "weight_stream"


class Weights:
    """Where the weights of a model are. In this class all are on the device, and there is nothing to do."""

    def device_of(self, parameter: torch.Tensor) -> torch.device:
        """The device that computes with the parameter."""
        return parameter.device

    def hold(self) -> None:
        """Put the weights to be streamed into host memory."""

    def stage(self, names: Iterable[str]) -> None:
        """Bring the blocks of these parameters to the device, where they are to be updated."""

    def updated(self, names: Iterable[str]) -> None:
        """These parameters have been updated."""

    def on_host(self) -> list[torch.Tensor]:
        """The weights in host memory."""
        return []

    def on_device(self) -> list[torch.Tensor]:
        """The memory of the device for weights that come and go."""
        return []

    @property
    def moved_bytes(self) -> dict[str, int]:
        """{"to_device", "to_host"}: bytes of weights copied so far."""
        return {"to_device": 0, "to_host": 0}

    def release(self) -> None:
        """Bring all weights to the device for good."""


class WeightStream(Weights, Wrapper):
    """The streamed weights of one model. It lives as long as the model, or until `release`."""

    def __init__(self, model: nn.Module) -> None:
        self._blocks = find_blocks(model)
        self._window = Window(self._blocks)
        self._of_module = {block.module: block for block in self._blocks}
        self._of_name = {name: block for block in self._blocks for name in block.places}
        outside = (p for name, p in places_in(model).items() if name not in self._of_name)
        self._resident = next(outside, None)
        self._first_device = next(p for _, p in self._blocks[0].weights()).device
        for block in self._blocks:
            wrap(block.module, MARK, self)

    @property
    def device(self) -> torch.device:
        """The device that computes: that of what is not streamed."""
        return self._first_device if self._resident is None else at(self._resident).device

    def device_of(self, parameter: torch.Tensor) -> torch.device:
        return self.device

    def hold(self) -> None:
        for block in self._blocks:
            self.expose(block.module)
            self.moved(block.module)

    @torch.no_grad()
    def stage(self, names: Iterable[str]) -> None:
        wanted = list({self._of_name[name]: None for name in names if name in self._of_name})
        self._window.load(wanted, self.device)
        for block in wanted:
            self._window.show(block)

    @torch.no_grad()
    def updated(self, names: Iterable[str]) -> None:
        self._window.write_back(names)

    def on_host(self) -> list[torch.Tensor]:
        return [b.homes.get(name, p) for b in self._blocks for name, p in b.weights()]

    def on_device(self) -> list[torch.Tensor]:
        return self._window.tensors()

    @property
    def moved_bytes(self) -> dict[str, int]:
        return {"to_device": self._window.in_bytes, "to_host": self._window.out_bytes}

    def release(self) -> None:
        device = self.device
        for block in self._blocks:
            if vars(block.module).get(MARK) is not self:
                continue  # released before, and perhaps another's by now
            self.expose(block.module)
            unwrap(block.module, MARK)
            for _, parameter in block.weights():
                parameter.data = parameter.data.to(device)

    # --- around a block ---------------------------------------------------------------------------

    def forward(
        self, block: nn.Module, run: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """The block's forward pass, in whose graph its weights are references if it has one."""
        own = self._of_module[block]
        own.in_graph = torch.is_grad_enabled() and _any_requires_grad(block, args, kwargs)
        self._show(own)
        if not own.in_graph:
            return run(*args, **kwargs)
        with saved_by_reference(own, self._show):
            return run(*args, **kwargs)

    def expose(self, block: nn.Module) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self._window.drop(self._of_module[block])

    def moved(self, block: nn.Module) -> None:
        own = self._of_module[block]
        self._first_device = next(
            (p.device for _, p in own.weights() if p.is_cuda), self._first_device
        )
        with torch.no_grad():
            own.settle(pinned=self.device.type == "cuda")

    def _show(self, block: Block) -> None:
        """Make the block's parameters those in the window, and begin to copy the block that computes next."""
        coming = self._next(block)
        with torch.inference_mode(False), torch.no_grad():
            self._window.load([block] if coming is None else [block, coming], self.device)
            self._window.show(block)

    def _next(self, block: Block) -> Block | None:
        """The block that computes after this one, as far as it is known."""
        backward = torch._C._current_graph_task_id() != -1
        index = block.index + (-1 if backward else 1)
        if not 0 <= index < len(self._blocks) or (backward and not self._blocks[index].in_graph):
            return None
        return self._blocks[index]


def stream_of(model: nn.Module) -> Weights:
    """Where the weights of `model` are now."""
    marked = (vars(module)[MARK] for module in model.modules() if MARK in vars(module))
    found: Weights = next(marked, Weights())
    return found


def make_weights(model: nn.Module, kind: str) -> Weights:
    """The weights of `model`, resident or streamed.

    A stream that an earlier optimizer left is taken over, or released. Raises UserError for an unknown kind
    and for a model whose weights cannot be streamed.
    """
    if kind not in KINDS:
        raise UserError(f'unknown weights "{kind}"{nearest(kind, KINDS)}')
    weights = stream_of(model)
    if kind == "resident":
        weights.release()
        return Weights()
    _check(model)
    return weights if isinstance(weights, WeightStream) else WeightStream(model)


def keep_on_host(model: nn.Module) -> None:
    """Make the weights of the blocks stay in host memory from now on, whatever device the model moves to.

    Called before the model moves, it keeps the device from ever holding all weights:

        keep_on_host(model)
        optimizer = HiFT(model.to("cuda"), weights="stream")

    Raises UserError for a model whose weights cannot be streamed.
    """
    make_weights(model, "stream")


def _check(model: nn.Module) -> None:
    """Raise UserError for a model that is spread over ranks."""
    import torch.distributed as dist

    instead = 'use weights="resident"'
    if any(hasattr(parameter, "device_mesh") for parameter in model.parameters()):
        raise UserError(f'weights="stream" does not work with shards of fully_shard: {instead}')
    ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if ranks > 1 or isinstance(model, nn.parallel.DistributedDataParallel):
        raise UserError(f'weights="stream" works in one process, not with DDP: {instead}')


def _any_requires_grad(block: nn.Module, args: Any, kwargs: Any) -> bool:
    if any(parameter.requires_grad for parameter in block.parameters()):
        return True
    return any(isinstance(x, torch.Tensor) and x.requires_grad for x in tree_iter((args, kwargs)))
