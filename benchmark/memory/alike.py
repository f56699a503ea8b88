"""Groups that differ only in depth, of which a simulation counts one."""

from typing import Any

from torch import nn

from benchmark.engine import Group


def signature(model: nn.Module, group: Group) -> Any:
    """Equal for groups that differ only in depth: shapes of the parameters and settings of the modules."""
    modules = dict(model.named_modules())
    named = dict(model.named_parameters())
    shapes = tuple((tuple(named[n].shape), named[n].dtype) for n in group.parameters)
    units = tuple(_settings(modules[unit]) if unit in modules else unit for unit in group.units)
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
