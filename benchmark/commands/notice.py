"""A note when a matrix ends: the terminal's bell, or a message to a webhook."""

import contextlib
import http.client
import json
import sys
import urllib.request
from collections.abc import Callable, Iterator

from benchmark.commands.options import say
from benchmark.errors import UserError

BELL = "bell"
_TIMEOUT_S = 5.0


def check(to: str | None) -> None:
    """Raises UserError if a note cannot be sent there."""
    if to is not None and to != BELL and not to.startswith(("http://", "https://")):
        raise UserError(f'--notify {to}: neither "{BELL}" nor the http(s):// address of a webhook')


@contextlib.contextmanager
def at_end(to: str | None, name: str) -> Iterator[Callable[[str], None]]:
    """Context that sends a note about the matrix `name` when it ends, however it does.

    Yields the function that sets what the note says. Where nothing is set, it says what was raised.
    """
    says: list[str] = []
    try:
        yield says.append
    except BaseException as error:
        if not says:
            says.append(f"ended by {' '.join(f'{type(error).__name__} {error}'.split())}")
        raise
    finally:
        if to is not None and says:
            _send(to, f"hift-bench: {name}: {says[-1]}")


def _send(to: str, text: str) -> None:
    """Ring the bell, or post {"text": text} as JSON, which chat programs take. A failure is one line."""
    if to == BELL:
        sys.stderr.write("\a")
        sys.stderr.flush()
        return
    body = json.dumps({"text": text}).encode()
    headers = {"Content-Type": "application/json"}
    try:
        request = urllib.request.Request(to, body, headers)
        urllib.request.urlopen(request, timeout=_TIMEOUT_S).close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        say(f"hift-bench: the note to {to} was not sent: {error}")
