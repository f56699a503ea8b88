"""Wrapped blocks: a wrapper is called for the forward pass of a block, and before its weights are read or
written by anything else.

A wrapped block is of a subclass of its own class, not a patched instance. So copies and pickles of it are of
its own class and know nothing of the wrapper.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from torch import nn

OWN = "_wrapper_mark"
"""The attribute of a wrapping class that has its mark."""


class Wrapper:
    """What is done around a block; by default nothing."""

    def forward(
        self, block: nn.Module, run: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """The block's forward pass; `run` is its own."""
        return run(*args, **kwargs)

    def expose(self, block: nn.Module) -> None:
        """The block's weights are about to be read, written, moved or cast, not by a forward pass."""

    def moved(self, block: nn.Module) -> None:
        """The block's weights may have been moved or cast."""


def wrap(block: nn.Module, mark: str, wrapper: Wrapper) -> None:
    """Wrap `block`; `mark` is the name of its attribute that holds the wrapper."""
    if mark not in vars(block):
        cls: Any = type(block)
        block.__class__ = _wrapped(cls, mark)
    vars(block)[mark] = wrapper


def unwrap(block: nn.Module, mark: str) -> None:
    """Take this wrapper off; others stay, in their order."""
    vars(block).pop(mark)
    cls: Any = type(block)
    others: list[str] = []
    while own := vars(cls).get(OWN):
        others += [own] if own != mark else []
        cls = cls.__bases__[0]
    for other in reversed(others):
        cls = _wrapped(cls, other)
    block.__class__ = cls


@cache
def _wrapped(cls: Any, mark: str) -> Any:
    """The subclass of `cls` whose objects have a wrapper in their attribute `mark`."""

    def wrapper_of(block: nn.Module) -> Wrapper:
        wrapper: Wrapper = vars(block).get(mark) or Wrapper()
        return wrapper

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return wrapper_of(self).forward(self, super(subclass, self).forward, args, kwargs)

    def apply(self: Any, *args: Any, **kwargs: Any) -> Any:
        wrapper_of(self).expose(self)
        result = super(subclass, self)._apply(*args, **kwargs)
        wrapper_of(self).moved(self)
        return result

    def save(self: Any, *args: Any, **kwargs: Any) -> None:
        wrapper_of(self).expose(self)
        super(subclass, self)._save_to_state_dict(*args, **kwargs)

    def load(self: Any, *args: Any, **kwargs: Any) -> None:
        wrapper_of(self).expose(self)
        super(subclass, self)._load_from_state_dict(*args, **kwargs)

    def reduce(self: Any, protocol: int) -> Any:
        wrapper_of(self).expose(self)
        plain = object.__new__(cls)
        vars(plain).update({k: v for k, v in vars(self).items() if k != mark})
        return plain.__reduce_ex__(1)  # protocols from 2 on require the class of the object itself

    body = {
        "forward": forward,
        "_apply": apply,
        "_save_to_state_dict": save,
        "_load_from_state_dict": load,
        "__reduce_ex__": reduce,
        "__module__": cls.__module__,
        OWN: mark,
    }
    subclass: Any = type(cls.__name__, (cls,), body)
    return subclass
