"""The saved form of a block-wise optimizer: state by parameter name, with the schedule's position.

    {"version", "optimizer", "step", "schedule", "groups", "parameters", "param_groups", "state"}

Plain data and tensors only, so torch.load(weights_only=True) reads it. "parameters" has the shape and
dtype of the tensor of each state. A state dict without it, from an older version, is not checked for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmark import rows
from benchmark.engine.offload import Entry
from benchmark.engine.plan import Plan
from benchmark.engine.sharded import is_sharded, of_part, shard_like
from benchmark.errors import UserError

VERSION = 1
Layout = Mapping[str, Mapping[str, Any]]  # as Residents.layout gives it


@dataclass(frozen=True)
class Definition:
    """The definition of an optimizer, without its position. A state is loaded only into the same definition.

    optimizer: the wrapped class. param_groups: as in torch, with names in place of tensors. layout: shape and
    dtype of the tensors that the optimizer updates. masters: none, active or all.
    """

    optimizer: str
    plan: Plan
    param_groups: Sequence[Mapping[str, Any]]
    layout: Layout
    masters: str


def pack(definition: Definition, step: int, state: Mapping[str, Entry]) -> dict[str, Any]:
    """The state dict; `state` may share tensors with the optimizer."""
    return {
        "version": VERSION,
        "optimizer": definition.optimizer,
        "step": step,
        "schedule": definition.plan.schedule.plain(),
        "groups": [list(group.parameters) for group in definition.plan.groups],
        "parameters": dict(definition.layout),
        "param_groups": [dict(group) for group in definition.param_groups],
        "state": {name: dict(entry) for name, entry in state.items() if entry},
    }


def unpack(
    definition: Definition,
    state_dict: Mapping[str, Any],
    parameters: Mapping[str, torch.Tensor],
    *,
    on_host: Callable[[str], bool],
) -> tuple[int, dict[str, Entry]]:
    """(step, copies of the entries by name), checked against this `definition` and these `parameters`, by
    name.

    on_host: whether idle values of a key are in host memory. Raises UserError for the state of another
    definition.
    """
    if state_dict.get("version") != VERSION or "groups" not in state_dict:
        raise UserError("not the state of a block-wise optimizer (no groups, or another version)")
    mine, layout = pack(definition, 0, {}), definition.layout
    ours = set(parameters)
    theirs = {
        rows.whole(n) for names in (*state_dict["groups"], state_dict["state"]) for n in names
    }
    if unmatched := sorted(theirs ^ ours):
        where = "is not saved" if unmatched[0] in ours else "is not in this model"
        raise UserError(f'state of another model: parameter "{unmatched[0]}" {where}')
    if list(map(list, state_dict["groups"])) != mine["groups"]:
        raise UserError(
            f"saved with {len(state_dict['groups'])} groups, the largest of "
            f"{max(map(len, state_dict['groups']))} tensors; this one has {len(mine['groups'])}, the "
            f"largest of {max(map(len, mine['groups']))}: build it with the same group_size, partition "
            "and units"
        )
    for key, value in mine["schedule"].items():
        if (was := state_dict["schedule"].get(key)) != value:
            raise UserError(f"saved with {key} {was!r}; this optimizer has {value!r}")
    if state_dict["optimizer"] != mine["optimizer"]:
        raise UserError(f"saved by {state_dict['optimizer']}; this wraps {mine['optimizer']}")
    if [g["params"] for g in state_dict["param_groups"]] != [
        g["params"] for g in mine["param_groups"]
    ]:
        raise UserError("saved with other param_groups: their members must be the same")
    _check_layout(state_dict.get("parameters", layout), layout)
    entries = {
        name: _copy(name, entry, parameters[rows.whole(name)], layout[name]["shape"], on_host)
        for name, entry in state_dict["state"].items()
    }
    if definition.masters == "all":
        if lost := next((n for n in layout if "master" not in entries.get(n, {})), None):
            raise UserError(f'saved without the master weight of "{lost}"')
    elif definition.masters == "none" and any("master" in e for e in entries.values()):
        raise UserError('saved with master weights; build this optimizer with the same "master"')
    return int(state_dict["step"]), entries


def _check_layout(saved: Layout, mine: Layout) -> None:
    """Raise UserError for the first parameter that was saved with another shape or dtype."""
    for name, here in mine.items():
        was = saved[name]
        if was["shape"] != here["shape"]:
            raise UserError(
                f'"{name}" was saved with shape {was["shape"]}; it has {here["shape"]} here'
            )
        if was["dtype"] != here["dtype"]:
            raise UserError(
                f'"{name}" was trained in {was["dtype"]}; it is trained in {here["dtype"]} here'
            )


def _copy(
    name: str,
    entry: Mapping[str, Any],
    parameter: torch.Tensor,
    shape: Sequence[int],
    on_host: Callable[[str], bool],
) -> Entry:
    """A copy of an entry, in host memory if idle state is there: a checkpoint may have been loaded to the
    device."""
    copied: Entry = {}
    for key, value in entry.items():
        if isinstance(value, torch.Tensor):
            if is_sharded(parameter) and value.ndim and not is_sharded(value):
                value = shard_like(value, parameter)  # of sharded.full_state_dict
            device = torch.device("cpu") if on_host(key) else value.device
            value = of_part(partial(torch.Tensor.to, device=device, copy=True), value.detach())
        copied[key] = value
    master = copied.get("master")
    if master is not None and list(master.shape) != list(shape):
        raise UserError(
            f'"{name}" was saved with shape {list(master.shape)}; it has {list(shape)} here'
        )
    return copied
