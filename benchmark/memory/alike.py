"""What a simulation need not repeat: groups that differ only in depth, and pieces of one parameter."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from benchmark import rows
from benchmark.engine import Group


def signature(model: nn.Module, group: Group) -> Any:
    """Equal for groups that differ only in depth: shapes of the parameters and settings of the modules."""
    modules = dict(model.named_modules())
    named = dict(model.named_parameters())
    sizes = {name: parameter.shape for name, parameter in named.items()}
    shapes = tuple((rows.shape(n, sizes), named[rows.whole(n)].dtype) for n in group.parameters)
    owners = [
        rows.whole(u).rpartition(".")[0] if rows.whole(u) in named else u for u in group.units
    ]
    units = tuple(_settings(modules[name]) if name in modules else name for name in owners)
    return shapes, units


def _settings(module: nn.Module) -> Any:
    plain = (int, float, str, bool, type(None))
    return tuple(
        (
            name,
            type(part).__name__,
            tuple(
                (k, v)
                for k, v in vars(part).items()
                if isinstance(v, plain) and k not in ("layer_idx", "layer_id")
            ),
        )
        for name, part in module.named_modules()
    )


def visit_few(optimizer: Any, most: int) -> None:
    """Let an update inside the backward pass bring a parameter's state in at most so many pieces from now on.

    1: all of it at once, which makes the same state. 3: the first two pieces and the last, since all between
    are as the second.
    """
    residents: Any = getattr(optimizer, "_residents", None)
    kind: Any = type(residents)
    if not hasattr(kind, "_spans"):
        return

    def few(parameter: Any) -> Iterator[slice | None]:
        every = list(kind._spans(residents, parameter))
        if len(every) <= most:
            yield from every
        elif most == 1:
            yield slice(0, parameter.numel())
        else:
            yield from (*every[: most - 1], every[-1])

    vars(residents)["_spans"] = few
