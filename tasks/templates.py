"""Prompt templates: texts with `str.format` fields for a row's columns, and named filters.

`{premise}` is a column and `{idx.paragraph}` a value inside one. `{question:ask|upper_first}` is a column
passed through two filters. A filter's argument follows a blank: `{question:choose cause=because,effect=so}`.
A literal brace is doubled.
"""

import functools
import string
from collections.abc import Callable, Mapping
from typing import Any

Row = Mapping[str, Any]


def pieces(template: str, row: Row) -> list[tuple[str | None, str]]:
    """The text of a template for one row, in pieces: (None, literal text) or (field, text of the field).

    Raises ValueError for a column that is missing or blank. A column may be blank if a filter of OPTIONAL
    reads it.
    """
    result: list[tuple[str | None, str]] = []
    for literal, field, spec, _ in _parsed(template):
        if literal:
            result.append((None, literal))
        if field is not None:
            result.append((field, _value(field, spec or "", row)))
    return result


def columns(template: str) -> set[str]:
    """The columns that a template reads. Raises ValueError for an invalid field or filter."""
    names = set()
    for _, field, spec, conversion in _parsed(template):
        if field is None:
            continue
        if conversion or not field or not field.replace(".", "").replace("_", "").isalnum():
            raise ValueError(f"{{{field}}} is no column")
        for name, argument in _filters(spec or ""):
            if name not in FILTERS:
                raise ValueError(f"no filter {name!r}; there are {', '.join(FILTERS)}")
            if name == "put":
                names.add(argument.partition("=")[2])
        names.add(field.partition(".")[0])
    return names


@functools.cache
def _parsed(template: str) -> list[tuple[str, str | None, str | None, str | None]]:
    return list(string.Formatter().parse(template))


@functools.cache
def _filters(spec: str) -> list[tuple[str, str]]:
    pairs = (part.partition(" ") for part in spec.split("|") if part)
    return [(name, argument) for name, _, argument in pairs]


def _value(field: str, spec: str, row: Row) -> str:
    value: Any = look_up(field, row)
    filters = _filters(spec)
    optional = any(name in OPTIONAL for name, _ in filters)
    if value is None or value == [] or (_blank(value) and not optional):
        raise ValueError(f"column {field}: empty text {value!r}")
    was_text = isinstance(value, str)  # a filter may empty a short text (`no_last`)
    for name, argument in filters:
        value = _filtered(field, value, name, argument, row)
    if not isinstance(value, str | int | float) or value != value:  # NaN stands for a missing value
        raise ValueError(f"column {field}: {value!r} is no text")
    if _blank(value) and not was_text and not optional:
        raise ValueError(f"column {field}: empty text {value!r}")
    return str(value)


def _filtered(field: str, value: Any, name: str, argument: str, row: Row) -> Any:
    kind, expected = (list | tuple, "list of texts") if name in LISTS else (str, "text")
    try:
        if isinstance(value, kind):
            return FILTERS[name](value, argument, row)
    except ValueError as error:
        raise ValueError(f"column {field}: {error}") from None
    except TypeError:  # an item of the list is not a text
        pass
    raise ValueError(f"column {field}: {value!r} is no {expected}")


def _blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def look_up(field: str, row: Row) -> Any:
    """The value of a column, or with dots a value inside it. Raises ValueError if it is missing."""
    value: Any = row
    for key in field.split("."):
        if not isinstance(value, Mapping) or key not in value:
            if isinstance(value, Mapping):
                raise ValueError(f"column {field} is missing; the data has {', '.join(value)}")
            raise ValueError(f"column {field}: {value!r} has no {key}")
        value = value[key]
    return value


def _ask(text: str, _: str, __: Row) -> str:
    return text if text.endswith("?") else text + "?"


def _lower_first(text: str, _: str, __: Row) -> str:
    """The first word in lower case, unless it is "I"."""
    first, blank, rest = text.partition(" ")
    return text if first == "I" else first.lower() + blank + rest


def _choose(text: str, pairs: str, _: Row) -> str:
    table = dict(pair.split("=") for pair in pairs.split(","))
    if text not in table:
        raise ValueError(f"{text!r} is none of {', '.join(table)}")
    return table[text]


def _replace(text: str, pair: str, _row: Row) -> str:
    old, _, new = pair.partition("=")
    return text.replace(old, new)


def _put(text: str, pair: str, row: Row) -> str:
    place, _, column = pair.partition("=")
    return text.replace(place, row[column])


def _triples(items: list[Any], _: str, __: Row) -> str:
    """Triples (lists, or texts separated by bars) as text, in the format of LoRA's GPT-2 experiments."""
    parts = (item.split(" | ") if isinstance(item, str) else item for item in items)
    return " | ".join(" : ".join(part) for part in parts)


FILTERS: dict[str, Callable[[Any, str, Row], str]] = {
    "strip": lambda text, _, __: text.strip(),
    "lower": lambda text, _, __: text.lower(),
    "upper_first": lambda text, _, __: text[:1].upper() + text[1:],
    "lower_first": _lower_first,
    "lower_letter": lambda text, _, __: text[:1].lower() + text[1:],
    "no_period": lambda text, _, __: text.rstrip().removesuffix("."),
    "no_last": lambda text, _, __: text[:-1],
    "spaced": lambda text, _, __: " " + text,
    "ask": _ask,
    "choose": _choose,
    "replace": _replace,
    "put": _put,
    "first": lambda items, _, __: items[0],
    "join": lambda items, between, _: between.join(items),
    "triples": _triples,
    "if": lambda text, wording, _: wording if text.strip() else "",
    "after": lambda text, wording, _: wording + text if text.strip() else "",
}
"""name -> function of value, argument and row. `if` and `after` give an empty text for a blank value."""

LISTS = ("first", "join", "triples")
"""Filters that take a list; the others take a text."""

OPTIONAL = ("if", "after")
