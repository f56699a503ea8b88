"""JSON files read strictly as dataclasses. Standard library alone."""

import dataclasses
import functools
import json
import math
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


def build(kind: Any, data: Any, path: Path, where: str = "") -> Any:
    """`data`, a value of the JSON file `path`, converted to the type `kind`.

    `kind` is a dataclass, a union, Literal, list, dict or plain type. `where` is the dotted key of the value
    in the file. Raises UserError naming file and key where the value does not have the type.
    """
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
    retired = getattr(kind, "RETIRED", ())
    data = {key: value for key, value in data.items() if key not in retired}
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
