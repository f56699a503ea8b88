"""Progress on stderr: a bar for the current run on a terminal, plain lines elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmark.console import printable
from benchmark.records.record import RunRecord
from benchmark.records.spec import RunSpec

LINE_SECONDS = 30.0
"""Seconds between two plain lines about the steps of a run."""


class Bars:
    """The runner's Progress on a console: a bar for each run, then one line with its score or error.

    bars: None for plain lines. total: the expected number of runs, if known. A search that adds trials ends
    with more, so each run beyond `total` raises it by one.
    """

    def __init__(self, console: Console, bars: Progress | None, total: int | None) -> None:
        self._console, self._bars, self._total = console, bars, total
        self._number = 0
        self._printed = 0.0  # when the last plain line was printed

    def started(self, spec: RunSpec, steps: int | None) -> None:
        self._number += 1
        of = f"/{max(self._total, self._number)}" if self._total else ""
        rate = f", trial of lr {spec.lr:g}" if spec.is_trial else ""
        run = printable(f"{spec.task} {spec.model} {spec.label}, seed {spec.seed}{rate}")
        self._name = f"[{self._number}{of}] {run}"
        self._began = self._printed = time.monotonic()
        if self._bars is not None:
            self._task = self._bars.add_task(escape(self._name), total=steps, loss="starting")
        else:
            self._say("started")

    def noted(self, note: str) -> None:
        """Print a note of the run, such as the rows that it leaves out."""
        self._say(note)

    def stepped(self, row: Mapping[str, Any]) -> None:
        loss = "" if row["loss"] is None else f"loss {row['loss']:.4f}"
        if self._bars is not None:
            self._bars.update(self._task, completed=row["step"], total=row["total"], loss=loss)
        elif time.monotonic() - self._printed > LINE_SECONDS:
            self._printed = time.monotonic()
            self._say(f"step {row['step']}/{row['total']} {loss}")

    def finished(self, spec: RunSpec, done: RunRecord) -> None:
        if self._bars is not None:
            self._bars.remove_task(self._task)
        seconds = time.monotonic() - self._began
        if done.scores is None:
            result = f"{done.status}: {done.error}"
        else:
            result = f"{done.scores.metric} {done.scores.main:.4f} on {done.scores.split}"
        self._say(f"{result} ({seconds:.0f} s)")

    def _say(self, what: str) -> None:
        self._console.print(f"{self._name}: {printable(what)}", markup=False, soft_wrap=True)


@contextlib.contextmanager
def bars(total: int | None) -> Iterator[Bars]:
    """A Bars on stderr; `total`: the expected number of runs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Bars(console, None, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bars(console, progress, total)


@contextlib.contextmanager
def counting(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr. Yields the function that moves it: (parts done, parts in all)."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)
