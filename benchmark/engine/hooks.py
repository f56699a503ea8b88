"""Hooks on gradients: what several files of the engine do as soon as a parameter's gradient is whole."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


def on_gradient(parameter: nn.Parameter, hook: Callable[[torch.Tensor], None]) -> RemovableHandle:
    """Call `hook` with the parameter each time a backward pass has accumulated its gradient.

    The hook stays when the parameter is frozen and unfrozen; torch takes hooks of trainable tensors only.
    """
    trains = parameter.requires_grad
    parameter.requires_grad_(True)
    handle = parameter.register_post_accumulate_grad_hook(hook)
    parameter.requires_grad_(trains)
    return handle
