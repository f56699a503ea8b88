"""JSON files read strictly as dataclasses. Standard library alone."""

import dataclasses
import functools
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal

from benchmark.errors import UserError, nearest

Kept = typing.TypeVar("Kept")


def read(kind: type[Kept], path: Path, version: int) -> Kept:
    """A JSON file as the dataclass `kind`, if its schema_version is `version`. Raises UserError where
    it is not, or the file is unreadable or off schema."""
    try:
        data = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, not JSON, or NaN in it
        raise UserError(f"{path}: unreadable record: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: unreadable record: not a JSON object")
    found = data.get("schema_version")
    if found != version:
        raise UserError(
            f"{path}: schema_version: {found!r} is not {version}, the one this version reads"
        )
    return typing.cast(Kept, build(kind, data, path))


def _no_number(name: str) -> typing.NoReturn:
    raise ValueError(f"{name} is no JSON number")


parse = json.JSONDecoder(parse_constant=_no_number).decode
"""A JSON text's value. ValueError for what is none, NaN and infinity included."""


def build(kind: Any, data: Any, path: Path, where: str = "") -> Any:
    """`data`, as read from the JSON file `path`, as an instance of `kind` (a dataclass, union, literal, dict
    or plain type). Raises UserError naming the key `where` it is none."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return data
    if origin in (types.UnionType, typing.Union):
        if data is None and type(None) in arguments:
            return None
        return build(next(a for a in arguments if a is not type(None)), data, path, where)
    if origin is Literal:
        if data not in arguments:
            raise UserError(
                f"{path}: {where}: {data!r} is unknown{nearest(data, map(str, arguments))}"
            )
        return data
    if origin is list:
        if not isinstance(data, list):
            raise UserError(f"{path}: {where}: {data!r} is not a list")
        return [build(arguments[0], v, path, f"{where}[{i}]") for i, v in enumerate(data)]
    if origin is dict:
        if not isinstance(data, dict):
            raise UserError(f"{path}: {where}: {data!r} is not a table of values")
        return {k: build(arguments[1], v, path, f"{where}.{k}") for k, v in data.items()}
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, data, path, where)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise UserError(f"{path}: {where}: {data!r} is not {kind.__name__}")
    return data


_hints = functools.cache(typing.get_type_hints)


def _dataclass(kind: Any, data: Any, path: Path, where: str) -> Any:
    if not isinstance(data, dict):
        raise UserError(f"{path}: {where}: {data!r} is not a table of values")
    hints = _hints(kind)
    prefix = f"{where}." if where else ""
    for key in data:
        if key not in hints:
            raise UserError(f"{path}: {prefix}{key}: unknown key{nearest(key, hints)}")
    for item in dataclasses.fields(kind):
        optional = (item.default, item.default_factory) != (dataclasses.MISSING,) * 2
        if item.name not in data and not optional:
            raise UserError(f"{path}: {prefix}{item.name}: missing")
    values = {k: build(hints[k], v, path, prefix + k) for k, v in data.items()}
    try:
        return kind(**values)
    except ValueError as error:  # fields that contradict each other
        raise UserError(f"{path}: {prefix}{error}") from None
