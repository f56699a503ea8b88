"""Messages about a wrong key, with the nearest valid name. Imports no torch."""

import difflib
from collections.abc import Collection, Iterable, Sequence

from pydantic import BaseModel, ValidationError


def nearest(name: object, valid: Iterable[str]) -> str:
    """' (did you mean "x"?)' if a valid name is similar, else ' (available: a, b, …)'."""
    names = sorted(valid)
    close = difflib.get_close_matches(str(name), names, n=1)
    return f' (did you mean "{close[0]}"?)' if close else f" (available: {', '.join(names)})"


def complaint(
    error: ValidationError, schema: type[BaseModel], valid: Collection[str], given: Collection[str]
) -> tuple[Sequence[str | int], str]:
    """pydantic's first error as the path of a key and the reason. A misspelt key comes before others.

    `valid`: the keys that the whole may have, which is checked by `schema`; `given`: those that it has. A key
    is misspelt if a valid one is near it that is not given.
    """
    errors, missing = error.errors(), {*valid} - {*given}
    unknown = (e for e in errors if e["type"] == "extra_forbidden" and len(e["loc"]) == 1)
    misspelt = (e for e in unknown if difflib.get_close_matches(str(e["loc"][0]), missing))
    first = next(misspelt, errors[0])
    hint = _nearest_key(schema, first["loc"], valid) if first["type"] == "extra_forbidden" else ""
    return first["loc"], first["msg"].removeprefix("Value error, ") + hint


def _nearest_key(schema: type[BaseModel], keys: Sequence[str | int], valid: Collection[str]) -> str:
    """A hint with the nearest valid key, for the unknown key at the end of the path `keys` in `schema`."""
    for key in keys[:-1]:
        inner = schema.model_fields[str(key)].annotation if key in schema.model_fields else None
        if not isinstance(inner, type) or not issubclass(inner, BaseModel):
            return ""
        schema, valid = inner, {*inner.model_fields}
    return nearest(keys[-1], valid)
