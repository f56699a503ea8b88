"""Bad input: one line that names the place, the key and the nearest valid name.

The command line turns it into exit code 2; nothing else is caught there, so a traceback always means
a defect of ours.
"""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(ValueError):
    """What the user gave cannot be used; the message is the one line they read."""


class Unsupported(UserError):
    """A combination that cannot work (method, precision, device): a result of the cell, not a mistake."""


def nearest(name: object, valid: Iterable[str]) -> str:
    """' (did you mean "x"?)' for a near miss, else ' (valid: a, b, …)'; '' when nothing is valid."""
    names = sorted(valid)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    if close:
        return f' (did you mean "{close[0]}"?)'
    return f" (valid: {', '.join(names)})" if names else ""


def first_complaint(error: "ValidationError", valid: Iterable[str]) -> str:
    """The first complaint of pydantic in one line, with the value and, for a name, the nearest valid."""
    found = error.errors()
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{first['loc'][-1]}: unknown key{nearest(first['loc'][-1], valid)}"
    if first["type"] == "literal_error":
        names = first["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return f"unknown value {first['input']!r}{nearest(first['input'], names)}"
    if first["type"] in ("value_error", "missing"):
        return ": ".join([*map(str, first["loc"][1:] or first["loc"]), message])
    return f"{first['input']!r}: {message[0].lower()}{message[1:]}"
