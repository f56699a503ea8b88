"""Hooks on gradients: what several files of the engine do as soon as a parameter's gradient is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


def on_gradient(parameter: nn.Parameter, hook: Callable[[torch.Tensor], None]) -> RemovableHandle:
    """Call `hook` with the parameter each time a backward pass has accumulated its gradient.

    The hook stays when the parameter is frozen and unfrozen.
    """
    with _trainable(parameter):
        return parameter.register_post_accumulate_grad_hook(hook)


def before_gradient(
    parameter: nn.Parameter, hook: Callable[[torch.Tensor], None]
) -> RemovableHandle:
    """Call `hook` with the gradient that a backward pass is about to accumulate; as `on_gradient`."""
    with _trainable(parameter):
        handle: RemovableHandle = parameter.register_hook(hook)
        return handle


@contextmanager
def _trainable(parameter: nn.Parameter) -> Iterator[None]:
    """torch takes hooks of trainable tensors only."""
    trains = parameter.requires_grad
    parameter.requires_grad_(True)
    yield
    parameter.requires_grad_(trains)
