"""Watches a matrix that runs elsewhere, by its records: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from benchmark.matrices import planning, tally
from benchmark.matrices.matrix import Matrix
from benchmark.matrices.tally import Tally

LOOK_S = 2.0
"""Seconds between two looks at the records; ten times what a look takes, if that is more."""


def watch(
    matrix: Matrix,
    results: Path,
    console: Console,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show how far the matrix is, until no run is left or the user ends it."""
    if not console.is_terminal:
        said = None
        for now in _looks(matrix, results, sleep):
            if now.counts != said:
                said = now.counts
                console.print(f"{matrix.name}: {now}", markup=False, soft_wrap=True)
        return
    columns = (
        TextColumn("{task.fields[name]}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=None, name=matrix.name, now="")
        for now in _looks(matrix, results, sleep):
            progress.update(bar, completed=now.total - now.left, total=now.total, now=str(now))


def _looks(matrix: Matrix, results: Path, sleep: Callable[[float], None]) -> Iterator[Tally]:
    while True:
        began = time.monotonic()
        now = tally.of(planning.plan(matrix, results), results)
        yield now
        if not now.left:
            return
        sleep(max(LOOK_S, 10 * (time.monotonic() - began)))
