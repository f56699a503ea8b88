"""Bad input: one line that names the place, the key and the nearest valid name.

The command line catches these errors and exits with 2. A traceback therefore means a defect of this suite.
"""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(ValueError):
    """An input that cannot be used. The message is the one line that the user reads."""


class Unsupported(UserError):
    """A combination of method, precision and device that cannot work: a result of the run, not a mistake."""


def nearest(name: object, valid: Iterable[str]) -> str:
    """The end of a message: ' (did you mean "x"?)' if a valid name is near, else ' (valid: a, b, …)'.

    It is '' if there are no valid names.
    """
    names = sorted(valid)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    if close:
        return f' (did you mean "{close[0]}"?)'
    return f" (valid: {', '.join(names)})" if names else ""


def first_complaint(error: "ValidationError", valid: Iterable[str]) -> str:
    """pydantic's first error in one line, with the value. An unknown key comes first, with the nearest of the
    `valid` names."""
    errors = error.errors()
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{first['loc'][-1]}: unknown key{nearest(first['loc'][-1], valid)}"
    if first["type"] == "literal_error":
        names = first["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return f"unknown value {first['input']!r}{nearest(first['input'], names)}"
    if first["type"] in ("value_error", "missing"):
        return ": ".join([*map(str, first["loc"][1:] or first["loc"]), message])
    return f"{first['input']!r}: {message[0].lower()}{message[1:]}"
