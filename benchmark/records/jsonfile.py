"""JSON files read strictly as dataclasses. Standard library alone."""

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
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
    data_version = data.get("schema_version")
    if data_version != version:
        raise UserError(
            f"{path}: schema_version: {data_version!r} is not {version}, the one this version reads"
        )
    return typing.cast(Kept, build(kind, data, path))


def _refuse_constant(name: str) -> typing.NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:20]} is too large a number")
    return number


_decode = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite).decode


def parse(text: str) -> Any:
    """The value of a JSON text.

    Raises ValueError for text that is not JSON, nested too deeply or no Unicode text, and for numbers that
    are not finite.
    """
    try:
        value = _decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if r"\ud" in text.lower():  # half of a surrogate pair can stand in JSON, but in no file
        json.dumps(value, ensure_ascii=False).encode()
    return value


def build(kind: Any, data: Any, path: Path) -> Any:
    """`data`, a value of the JSON file `path`, converted to the type `kind`.

    `kind` is a dataclass, a union with None, Literal, list, dict or plain type. Raises UserError naming file
    and key where the value does not have the type.
    """
    try:
        return _builder(kind)(data)
    except _Off as off:
        raise UserError(": ".join(filter(None, (str(path), off.where, off.message)))) from None


class _Off(Exception):
    """A value that does not have the type. where: its dotted key, which grows on the way out."""

    def __init__(self, message: str, where: str = "") -> None:
        self.message, self.where = message, where

    def within(self, key: str) -> "_Off":
        """The same, seen from the value that has this one at `key`."""
        dot = "." if self.where and not self.where.startswith("[") else ""
        return _Off(self.message, f"{key}{dot}{self.where}")


Builder = Callable[[Any], Any]


@functools.cache
def _builder(kind: Any) -> Builder:
    """The function that converts a value to `kind`. A report reads thousands of records, so what a type is
    made of is found once."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return _any
    if origin in (types.UnionType, typing.Union):
        other = _builder(next(a for a in arguments if a is not type(None)))
        return lambda data: None if data is None else other(data)
    if origin is Literal:
        return functools.partial(_literal, arguments)
    if origin is list:
        return functools.partial(_list, _builder(arguments[0]))
    if origin is dict:
        return functools.partial(_dict, _builder(arguments[1]))
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind)
    return functools.partial(_plain, kind)


def _any(data: Any) -> Any:
    return data


def _plain(kind: type, data: Any) -> Any:
    if type(data) is kind:
        return data
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if isinstance(data, kind) and not isinstance(data, bool):
        return data
    raise _Off(f"{data!r} is not {kind.__name__}")


def _literal(values: tuple[Any, ...], data: Any) -> Any:
    if data not in values:
        raise _Off(f"{data!r} is unknown{nearest(data, map(str, values))}")
    return data


def _list(item: Builder, data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise _Off(f"{data!r} is not a list")
    built = []
    for index, value in enumerate(data):
        try:
            built.append(item(value))
        except _Off as off:
            raise off.within(f"[{index}]") from None
    return built


def _dict(item: Builder, data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _Off(f"{data!r} is not a table of values")
    return data if item is _any else _each(dict.fromkeys(data, item), data)


def _each(items: Mapping[str, Builder], data: dict[str, Any]) -> dict[str, Any]:
    built = {}
    for key, value in data.items():
        try:
            built[key] = items[key](value)
        except _Off as off:
            raise off.within(key) from None
    return built


def _dataclass(kind: Any) -> Builder:
    hints, retired = typing.get_type_hints(kind), getattr(kind, "RETIRED", ())
    fields = {field.name: field for field in dataclasses.fields(kind)}
    items = {name: _builder(hint) for name, hint in hints.items() if name in fields}
    needed = [
        name
        for name, field in fields.items()
        if field.default is field.default_factory is dataclasses.MISSING
    ]

    def build(data: Any) -> Any:
        if not isinstance(data, dict):
            raise _Off(f"{data!r} is not a table of values")
        values = {key: value for key, value in data.items() if key not in retired}
        for key in values:
            if key not in items:
                raise _Off(f"unknown key{nearest(key, items)}", key)
        for name in needed:
            if name not in values:
                raise _Off("missing", name)
        try:
            return kind(**_each(items, values))
        except ValueError as error:  # fields that contradict each other; it names the first
            where, _, message = str(error).partition(": ")
            raise _Off(message, where) from None

    return build
