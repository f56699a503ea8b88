"""The file of a matrix and its axes: names with their settings, entries that select cells, and the baseline.

Whatever is malformed raises UserError, in one line that names the file, the key and the nearest valid name.
"""

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.errors import UserError, nearest
from benchmark.records import yamltext

AXES = ("tasks", "models", "strategies")
_AXIS_OF = dict(zip(("task", "model", "strategy"), AXES, strict=True))
Axis = dict[str, dict[str, Any]]
"""Name -> the settings that the matrix gives it."""


def read(path: Path) -> dict[str, Any]:
    """The table that the file holds."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        there = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise UserError(f"{path}: no such matrix file{nearest(path.name, there)}") from None
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read: {said}") from None
    try:
        data = yamltext.parse(text)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return table(data, path, "the file")


def table(value: Any, path: Path, where: str) -> dict[str, Any]:
    """`value`, if it is a table of keys and values."""
    if not isinstance(value, dict):
        raise UserError(f"{path}: {where}: {value!r} is not a table of keys and values")
    for key in value:
        if not isinstance(key, str):
            raise UserError(f"{path}: {where}: the key {key!r} is not a name")
    return value


def axis(value: Any, path: Path, name: str) -> Axis:
    """The axis `name`, from a table of name -> settings or from a list of names."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        if len(set(value)) < len(value):
            raise UserError(f"{path}: {name}: a name is given twice in {reprlib.repr(value)}")
        value = dict.fromkeys(value)
    if not value:
        raise UserError(f"{path}: {name}: missing: name at least one")
    return {
        key: table({} if entry is None else entry, path, f"{name}.{key}")
        for key, entry in table(value, path, name).items()
    }


def models(data: dict[str, Any], defaults: dict[str, Any], path: Path) -> Axis:
    """The axis `models:`, or the one model of `defaults.model`, which is removed from `defaults`."""
    model = defaults.pop("model", None)
    if data.get("models") is not None:
        if model is not None:
            raise UserError(f"{path}: defaults.model: the models are named under models already")
        return axis(data["models"], path, "models")
    if not isinstance(model, str):
        raise UserError(f"{path}: models: missing: name at least one, or give defaults.model")
    return {model: {}}


def models_of(task: str, axes: Mapping[str, Axis], path: Path) -> list[str]:
    """The models that a task runs on: those of its own `models`, or all."""
    where, known = f"{path}: tasks.{task}.models", axes["models"]
    wanted = axes["tasks"][task].get("models", list(known))
    if not isinstance(wanted, list) or not wanted:
        raise UserError(f"{where}: {wanted!r} is not a list of models")
    for name in wanted:
        if not isinstance(name, str) or name not in known:
            raise UserError(f"{where}: {name!r} is not here{nearest(name, known)}")
    return wanted


def baseline(value: Any, strategies: Axis, path: Path) -> str | None:
    """The strategy that reports compare the others with; None where the matrix names none."""
    if value is None:
        return None
    if not isinstance(value, str) or value not in strategies:
        known = nearest(value, strategies)
        raise UserError(f"{path}: baseline: {value!r} is no strategy of the matrix{known}")
    return value


def selectors(value: Any, path: Path, where: str, axes: Mapping[str, Axis]) -> list[dict[str, Any]]:
    """A list of tables, each of which selects cells by task, model and strategy (label)."""
    if not isinstance(value, list):
        raise UserError(f"{path}: {where}: {value!r} is not a list")
    for index, entry in enumerate(value):
        table(entry, path, f"{where}[{index}]")
        if not _AXIS_OF.keys() & entry.keys():
            raise UserError(f"{path}: {where}[{index}]: names no task, model or strategy")
        for key, item in entry.items():
            if key in _AXIS_OF and (not isinstance(item, str) or item not in axes[_AXIS_OF[key]]):
                close = nearest(item, axes[_AXIS_OF[key]])
                raise UserError(f"{path}: {where}[{index}].{key}: {item!r} is not here{close}")
            if key not in _AXIS_OF and where == "exclude":
                raise UserError(
                    f"{path}: {where}[{index}].{key}: unknown key{nearest(key, _AXIS_OF)}"
                )
    return value


def selects(entry: Mapping[str, Any], place: Mapping[str, str]) -> bool:
    """Whether a selector's entry selects the cell at `place` (task, model, strategy)."""
    return all(entry[key] == value for key, value in place.items() if key in entry)
