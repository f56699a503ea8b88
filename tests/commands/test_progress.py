"""The lines that a run prints on stderr where there is no terminal."""

import io

from factories import make_spec
from rich.console import Console

from benchmark.commands.progress import Bars


def test_no_run_is_numbered_beyond_the_total():
    """A search that adds trials has more runs than were expected."""
    text = io.StringIO()
    bars = Bars(Console(file=text, width=200), None, 2)
    for seed in range(3):
        bars.started(make_spec(seed=seed), 1)
    assert [line.split()[0] for line in text.getvalue().splitlines()] == ["[1/2]", "[2/2]", "[3/3]"]
