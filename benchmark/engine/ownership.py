"""Records which block-wise optimizer owns a parameter, as two optimizers would freeze each other's
parameters.

A parameter that an optimizer froze counts as trainable: once its owner no longer exists it is made trainable
again, so that a second optimizer of the same model schedules all parameters.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from benchmark.errors import UserError

_owners: Any = WeakIdKeyDictionary()  # parameter -> weak reference to its optimizer


def check_free(model: nn.Module) -> None:
    """Make parameters trainable whose owner no longer exists. Raises UserError if an owner still exists."""
    for _ in range(2):
        owned = [p for p in model.parameters() if p in _owners]
        if all(_owners[p]() is None for p in owned):
            break
        gc.collect()  # a scheduler and its optimizer refer to each other
    else:
        raise UserError(
            "another block-wise optimizer already schedules parameters of this model; "
            "call its release() first"
        )
    _free(owned)


def claim(owner: object, parameters: Iterable[nn.Parameter]) -> None:
    """Record `owner` as the one that sets requires_grad of these parameters."""
    reference = weakref.ref(owner)
    for parameter in parameters:
        _owners[parameter] = reference


def release(owner: object) -> None:
    """Make the owner's parameters trainable and remove their owner."""
    _free([p for p in list(_owners.keys()) if _owners[p]() is owner])


def _free(parameters: Iterable[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.requires_grad_(True)
        _owners.pop(parameter)
