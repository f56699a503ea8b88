"""Finds and builds the wrapped optimizer, and checks its options and parameter groups.

This project has no update rule of its own: it uses those of `benchmark.optimizers`, or any other torch class.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmark import rows
from benchmark.errors import UserError
from benchmark.optimizers import ELEMENTWISE, OPTIMIZERS, Optimizer, find


def find_optimizer(
    optimizer: str | type[torch.optim.Optimizer],
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """The class, and the options its name implies ("sgdm": momentum 0.9).

    Raises UserError for an unknown name, a missing package, or a class that keeps its own list of
    parameters and so cannot change groups (LBFGS).
    """
    implied: dict[str, Any] = {}
    if isinstance(optimizer, str):
        entry = find(optimizer.lower().replace("_", ""))
        name, modules, implied = entry.class_name, entry.modules, dict(entry.implied)
        found = next((c for m in modules if (c := _import(m, name)) is not None), None)
        if found is None:
            raise UserError(f'optimizer "{optimizer}" needs {name} of {" or ".join(modules)}')
        optimizer = found
    if not (isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer)):
        raise UserError(f"optimizer must be a torch.optim class or a name: {optimizer!r}")
    if issubclass(optimizer, torch.optim.LBFGS):
        raise UserError("LBFGS flattens one fixed list of parameters and cannot switch groups")
    return optimizer, implied


@dataclass
class HyperGroup:
    """Parameters that share options, as in a torch `param_groups` entry; `names` in model order."""

    options: dict[str, Any]
    names: list[str]


def hyper_groups(
    param_groups: Iterable[Mapping[str, Any]] | None, parameters: Mapping[str, nn.Parameter]
) -> list[HyperGroup]:
    """Read param_groups as in torch, whose "params" are tensors or names. None is one group of all
    parameters.

    Tensors outside `parameters`, such as frozen ones, are ignored. Raises UserError unless every entry of
    `parameters` is in exactly one group.
    """
    if param_groups is None:
        return [HyperGroup({}, list(parameters))]
    by_id = {id(p): name for name, p in parameters.items()}
    taken: set[Any] = set()
    groups = []
    for given in param_groups:
        if not isinstance(given, Mapping) or "params" not in given:
            raise UserError('each entry of param_groups must be a dict with "params"')
        names: set[Any] = set()
        for item in given["params"]:
            name = by_id.get(id(item)) if isinstance(item, torch.Tensor) else item
            if name in taken or name in names:
                raise UserError(f'parameter "{name}" is in two param_groups')
            if name in parameters:
                names.add(name)
        taken |= names
        options = {k: v for k, v in given.items() if k != "params"}
        groups.append(HyperGroup(options, [n for n in parameters if n in names]))
    left = [name for name in parameters if name not in taken]
    if left:
        raise UserError(f"{len(left)} parameters are in no param_groups entry: {left[0]}, …")
    return groups


class Roster:
    """Which tensors are in the wrapped optimizer's param_groups, by the names of their weights. Rows have the
    options of their parameter."""

    def __init__(self, hyper: Sequence[HyperGroup]) -> None:
        self._hyper = hyper
        self._group_of = {name: i for i, group in enumerate(hyper) for name in group.names}

    def split(
        self, names: Iterable[str], value: Callable[[str], torch.Tensor]
    ) -> list[list[torch.Tensor]]:
        """`value(name)` of the names, each tensor once, one list per entry of param_groups."""
        parts: list[dict[torch.Tensor, None]] = [{} for _ in self._hyper]
        for name in names:
            parts[self._group_of[rows.whole(name)]][value(name)] = None
        return [list(part) for part in parts]

    def show(
        self,
        param_groups: Sequence[dict[str, Any]],
        names: Iterable[str],
        value: Callable[[str], torch.Tensor],
    ) -> None:
        """Put `value(name)` of the names into param_groups, in place of all that they hold."""
        for group, members in zip(param_groups, self.split(names, value), strict=True):
            group["params"] = members


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """param_groups with decay on matrices and none on norms and biases (tensors of one
    dimension)."""
    named = [(n, p) for n, p in model.named_parameters()]
    return [
        {"params": [n for n, p in named if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [n for n, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]


def build(
    cls: type[torch.optim.Optimizer],
    hyper: Sequence[HyperGroup],
    members: Sequence[Sequence[torch.Tensor]],
    options: Mapping[str, Any],
) -> torch.optim.Optimizer:
    """The wrapped optimizer over `members`, one list of tensors per hyper group (may be empty)."""
    groups = [{**h.options, "params": list(m)} for h, m in zip(hyper, members, strict=True)]
    try:
        return cls(groups, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{cls.__name__}: {error}") from error


def all_at_once(
    model: nn.Module,
    optimizer: str | type[torch.optim.Optimizer],
    *,
    weight_decay: float,
    rates: Mapping[str, float] | None = None,
    **options: Any,
) -> torch.optim.Optimizer:
    """A plain optimizer, without groups that take turns, over all trainable parameters of `model`.

    Only matrices get weight decay. `rates`: parameter names -> their learning rate over `options["lr"]`; the
    param_groups of those left out come first.

    Raises UserError for an unknown optimizer and for options that it refuses.
    """
    cls, implied = find_optimizer(optimizer)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups = decay_groups(model, weight_decay)
    if rates:
        groups = _by_rate(groups, rates, options["lr"])
    hyper = hyper_groups(groups, trainable)
    members = [[trainable[name] for name in h.names] for h in hyper]
    return build(cls, hyper, members, implied | options)


def _by_rate(
    groups: Sequence[dict[str, Any]], rates: Mapping[str, float], lr: float
) -> list[dict[str, Any]]:
    """The param_groups, each cut into one per learning rate."""
    factors = sorted({1.0, *rates.values()}, key=lambda factor: (factor != 1.0, -factor))
    return [
        group
        | {"params": [n for n in group["params"] if rates.get(n, 1.0) == factor], "lr": lr * factor}
        for factor in factors
        for group in groups
    ]


def over(
    parameters: Sequence[torch.Tensor],
    optimizer: str | type[torch.optim.Optimizer],
    **options: Any,
) -> torch.optim.Optimizer:
    """A plain optimizer over these tensors. Raises UserError for options that it refuses."""
    cls, implied = find_optimizer(optimizer)
    return build(cls, [HyperGroup({}, [])], [parameters], implied | options)


def check_values(optimizer: str | type[torch.optim.Optimizer], options: Mapping[str, Any]) -> None:
    """Build the optimizer over a small matrix, to check its options before there is a model.

    Raises UserError for an unknown optimizer, a missing package, and options that the class refuses.
    """
    # whether a fused kernel works depends on the device
    given = {k: v for k, v in options.items() if k != "fused"}
    over([nn.Parameter(torch.zeros(2, 2))], optimizer, **given)


def elementwise(cls: type[torch.optim.Optimizer]) -> bool:
    """Whether the class updates each number of a tensor by itself, so that a part may be updated alone."""
    return any(entry.elementwise for entry in _entries(cls))


def tables(cls: type[torch.optim.Optimizer]) -> frozenset[str]:
    """The keys of the class's state under which all tensors have the same table."""
    return frozenset(key for entry in _entries(cls) for key in entry.tables)


def _entries(cls: type[torch.optim.Optimizer]) -> Iterator[Optimizer]:
    """The entries of OPTIMIZERS for the class."""
    for entry in OPTIMIZERS.values():
        found = (getattr(sys.modules.get(m), entry.class_name, None) for m in entry.modules)
        if cls in found:
            yield entry


def check_names(cls: type[torch.optim.Optimizer], names: Iterable[str]) -> None:
    """Raise UserError if rows are among the names of the weights, and the class needs whole matrices."""
    if any(map(rows.is_part, names)) and not elementwise(cls):
        raise UserError(
            f'partition="rows:N" updates some rows of a matrix at a time, and {cls.__name__} may need all of '
            f'them: use {", ".join(ELEMENTWISE)}, or partition="modules"'
        )


def state_size(
    cls: type[torch.optim.Optimizer],
    hyper: Sequence[HyperGroup],
    options: Mapping[str, Any],
    dtype: torch.dtype,
) -> int:
    """Bytes of state that an elementwise class keeps for one number of `dtype`, found by a step of one."""
    numbers = [torch.zeros(1, dtype=dtype) for _ in hyper]
    plain = [HyperGroup(_on_cpu(group.options), []) for group in hyper]
    optimizer = build(cls, plain, [[number] for number in numbers], _on_cpu(options))
    for number in numbers:
        number.grad = torch.zeros_like(number)
    optimizer.step()
    entries = [optimizer.state.get(number, {}) for number in numbers]
    return max(
        sum(v.nbytes for v in entry.values() if isinstance(v, torch.Tensor) and v.ndim)
        for entry in entries
    )


def _on_cpu(options: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k not in ("fused", "capturable")}


def check_options(
    cls: type[torch.optim.Optimizer],
    hyper: Sequence[HyperGroup],
    parameters: Mapping[str, nn.Parameter],
    options: Mapping[str, Any],
) -> None:
    """Build the optimizer over all parameters on the meta device, which takes no memory.

    Raises UserError for bad options and shapes (Muon needs matrices), before anything changes.
    """
    shapes = [
        [nn.Parameter(torch.empty_like(parameters[n], device="meta")) for n in h.names]
        for h in hyper
    ]
    # fused kernels refuse the meta device; `build` checks them on the real one
    build(cls, hyper, shapes, {k: v for k, v in options.items() if k != "fused"})


def _import(module: str, name: str) -> type[torch.optim.Optimizer] | None:
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
