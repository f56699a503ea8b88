"""Progress on stderr: on a terminal a bar for all runs and one for each that runs, plain lines elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmark.commands.overall import Overall
from benchmark.console import printable
from benchmark.records.record import RunRecord
from benchmark.records.spec import RunSpec

LINE_SECONDS = 30.0
"""Seconds between two plain lines about the steps of a run."""


@dataclass
class _Shown:
    """A run in progress. began, printed: when it began, and when its last plain line was printed."""

    name: str
    began: float
    printed: float
    task: TaskID | None = None


class Bars:
    """The runner's Progress on a console: a bar for each run, then one line with its score or error and how
    far all runs are.

    bars: None for plain lines. total: the expected number of runs, if known. A search that adds trials ends
    with more, so each run beyond `total` raises it by one.
    """

    def __init__(self, console: Console, bars: Progress | None, total: int | None) -> None:
        self._console, self._bars, self._total = console, bars, total
        self._overall = Overall(total)
        self._all = None if bars is None else bars.add_task("all runs", total=total, loss="")
        self._number = 0
        self._runs: dict[str, _Shown] = {}  # those in progress, by run id

    def started(self, spec: RunSpec, steps: int | None) -> None:
        self._number += 1
        self._overall.started()
        self._show_overall()
        of = f"/{max(self._total, self._number)}" if self._total else ""
        rate = f", trial of lr {spec.lr:g}" if spec.is_trial else ""
        run = printable(f"{spec.task} {spec.model} {spec.label}, seed {spec.seed}{rate}")
        now = time.monotonic()
        shown = self._runs[spec.run_id] = _Shown(f"[{self._number}{of}] {run}", now, now)
        if self._bars is not None:
            shown.task = self._bars.add_task(escape(shown.name), total=steps, loss="starting")
        else:
            self._say(shown.name, "started")

    def noted(self, note: str, spec: RunSpec | None = None) -> None:
        """Print a note, such as of the rows that a run leaves out."""
        self._say("hift-bench" if spec is None else self._runs[spec.run_id].name, note)

    def stepped(self, spec: RunSpec, row: Mapping[str, Any]) -> None:
        shown, loss = self._runs[spec.run_id], ""
        if row["loss"] is not None:
            loss = f"loss {row['loss']:.4f}"
        if self._bars is not None and shown.task is not None:
            self._bars.update(shown.task, completed=row["step"], total=row["total"], loss=loss)
        elif time.monotonic() - shown.printed > LINE_SECONDS:
            shown.printed = time.monotonic()
            self._say(shown.name, f"step {row['step']}/{row['total']} {loss}")

    def finished(self, spec: RunSpec, done: RunRecord) -> None:
        shown = self._runs.pop(spec.run_id)
        self._overall.finished(done)
        self._show_overall()
        if self._bars is not None and shown.task is not None:
            self._bars.remove_task(shown.task)
        seconds = time.monotonic() - shown.began
        if done.scores is None:
            result = f"{done.status}: {done.error}"
        else:
            result = f"{done.scores.metric} {done.scores.main:.4f} on {done.scores.split}"
        so_far = f"; {self._overall}" if self._bars is None else ""
        self._say(shown.name, f"{result} ({seconds:.0f} s){so_far}")

    def dropped(self, spec: RunSpec) -> None:
        shown = self._runs.pop(spec.run_id)
        self._overall.dropped()
        self._show_overall()
        if self._bars is not None and shown.task is not None:
            self._bars.remove_task(shown.task)
        self._say(shown.name, "another runner makes it")

    def _show_overall(self) -> None:
        if self._bars is not None and self._all is not None:
            far = self._overall
            self._bars.update(self._all, completed=far.ended, total=far.total, loss=str(far))

    def _say(self, name: str, what: str) -> None:
        self._console.print(f"{name}: {printable(what)}", markup=False, soft_wrap=True)


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
