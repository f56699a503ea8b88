"""The nearest valid name, for messages about an unknown name."""

import difflib
from collections.abc import Iterable


def nearest(name: object, valid: Iterable[str]) -> str:
    """' (did you mean "x"?)' if a valid name is similar, else ' (available: a, b, …)'."""
    names = sorted(valid)
    close = difflib.get_close_matches(str(name), names, n=1)
    return f' (did you mean "{close[0]}"?)' if close else f" (available: {', '.join(names)})"
