"""Bad input: one line that names the place, the key and the nearest valid name.

The command line turns it into exit code 2; nothing else is caught there, so a traceback always means
a defect of ours.
"""

import difflib
from collections.abc import Iterable


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
