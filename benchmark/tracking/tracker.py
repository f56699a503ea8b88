"""Logs runs to MLflow beside training: live while a matrix runs, and from the records what that missed."""

import contextlib
import logging
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from benchmark.records.record import RunRecord
from benchmark.records.spec import RunSpec
from benchmark.tracking import filling
from benchmark.tracking.background import Background
from benchmark.tracking.filling import Progress
from benchmark.tracking.mlflow_store import Child, Store
from benchmark.tracking.uris import is_remote, tracking_uri, without_password

_FLUSH_ROWS, _FLUSH_SECONDS = 200, 5.0  # a call costs 15 ms, and 0.3 ms for each row
_LOGGERS = ("mlflow", "alembic", "urllib3.connectionpool")
_PAUSE_S = 10.0  # between a failure and the next try
_SHARE = 0.01  # of its time, for which a matrix waits at its end
_SECONDS = {"answered": 2.0, "failed": 0.3, "local": 60.0}  # for which it waits at least


class Tracker:
    """Context manager that logs to `experiment`, which is created where missing. `uri` is as in
    `tracking_uri`, whose environment variable is read on construction.

    What it is told is logged on a thread of its own (see background.py). No method waits for the store, or
    raises what it raises, so a store that is slow, hangs or is gone holds no run up. The first failure is one
    line on stderr. Whatever could not be logged is missing until `fill` logs it from the records.

    The end of the context waits for what is left. It gives up on a call that takes more than 1 % of the time
    that the context took (2 s at least, and 0.3 s where the store failed last), or than `patience` seconds.
    """

    def __init__(
        self,
        uri: str | None,
        experiment: str,
        description: str = "",
        patience: float | None = None,
    ) -> None:
        self.filled = False
        """Whether the store was made to agree with all records that `fill` got."""
        self.logged = 0
        """Of how many of these records it lacked something."""
        self._uri, self._patience = tracking_uri(uri), patience
        self._began = time.monotonic()
        self._background = Background()
        self._rows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        self._flushed = self._began
        self._running: set[str] = set()  # run ids
        self._said = False
        # what follows belongs to the thread
        self._store = Store(self._uri, experiment, description)
        self._open: dict[str, Child] = {}  # by run id
        self._stale: set[str] = set()  # the parents whose means are not computed yet
        self._failed, self._again = False, -math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for run_id in list(self._rows):
            self._flush(run_id)
        self._later(self._close, at_once=True)
        if not self._background.finish(self._is_stuck):
            self.filled = False
            self._say(f"{without_password(self._uri)} does not answer")
        elif self._said and self.filled:
            print("hift-bench: MLflow has every record now", file=sys.stderr)

    def start(self, spec: RunSpec) -> None:
        """Open a run for `spec`. It replaces the run of an earlier attempt at the same spec."""
        self._running.add(spec.run_id)
        self._later(self._start, spec, round(time.time() * 1000))

    def steps(self, spec: RunSpec, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add curve rows to the run of `spec`. They are sent in batches, every 5 seconds or 200 rows."""
        waiting = self._rows[spec.run_id]
        waiting += rows
        if len(waiting) >= _FLUSH_ROWS or time.monotonic() - self._flushed > _FLUSH_SECONDS:
            for run_id in list(self._rows):
                self._flush(run_id)
            self._flushed = time.monotonic()

    def finish(self, record: RunRecord, folder: Path) -> None:
        """Complete the run from its record. Where none is open, log the whole record."""
        self._flush(record.run_id)
        self._running.discard(record.run_id)
        self._later(self._finish, record, folder)

    def fill(
        self,
        records: Iterable[tuple[RunRecord, Path]],
        progress: Progress = lambda done, of: None,
    ) -> None:
        """Log what the store lacks of the records, each with its folder; close and tidy (see filling.py).

        `progress` is called on the tracker's thread.
        """
        self._later(self._fill, list(records), set(self._running), progress, at_once=True)

    def report(self, page: Path) -> None:
        """Keep the page of the report with the experiment, once for all its runs."""
        self._later(self._report, page, at_once=True)

    def _flush(self, run_id: str) -> None:
        if rows := self._rows.pop(run_id, None):
            self._later(self._steps, run_id, rows)

    def _later(self, action: Callable[..., None], *arguments: Any, at_once: bool = False) -> None:
        """Have the thread do `action`, unless the store failed in the last seconds; `at_once`: even then."""

        def job() -> None:
            if time.monotonic() < self._again and not at_once:
                return
            try:
                with _quiet():
                    action(*arguments)
                self._failed = False
            except Exception as error:
                self._failed, self._again = True, time.monotonic() + _PAUSE_S
                self._store = self._store.anew()  # what was known of it may no longer hold
                lines = str(error).strip().splitlines() or [""]
                self._say(f"{type(error).__name__}: {lines[0][:300]}")

        self._background.put(job)

    def _is_stuck(self) -> bool:
        """Whether the present call has taken longer than a program that is about to end waits for it."""
        least = _SECONDS["failed" if self._failed else "answered"]
        if not is_remote(self._uri):
            least = _SECONDS["local"]
        patience = max(least, _SHARE * (time.monotonic() - self._began))
        return self._store.age > (self._patience or patience)

    def _say(self, reason: str) -> None:
        if not self._said:
            self._said = True
            print(
                f"hift-bench: MLflow failed: {reason}; no record is lost, and what is missing in MLflow is"
                " logged at the end, or by `hift-bench sync`",
                file=sys.stderr,
            )

    # on the thread

    def _start(self, spec: RunSpec, now: int) -> None:
        child = self._store.create(spec.model_dump(mode="json"), spec.run_id, spec.hash, now)
        self._open[spec.run_id] = child
        self._store.client.update_run(child.parent, status="RUNNING")
        self._refresh(but={each.parent for each in self._open.values()})

    def _steps(self, run_id: str, rows: list[Mapping[str, Any]]) -> None:
        if child := self._open.get(run_id):
            self._store.log_rows(child, rows)

    def _finish(self, record: RunRecord, folder: Path) -> None:
        child = self._open.pop(record.run_id, None)
        if child is None or child.spec_hash != record.spec_hash:
            child = self._store.create_from(record)
        self._stale.add(child.parent)
        self._store.complete(child, record, folder)

    def _fill(
        self, records: list[tuple[RunRecord, Path]], running: set[str], progress: Progress
    ) -> None:
        self._open = {run_id: self._open[run_id] for run_id in running & self._open.keys()}
        mine = {child.id for child in self._open.values()}
        self.logged = filling.fill(self._store, records, mine, progress)
        self._stale.clear()
        self.filled = True

    def _report(self, page: Path) -> None:
        self._store.log_report(page)

    def _close(self) -> None:
        """Mark the open runs KILLED. They have no record, because they were stopped (Ctrl-C)."""
        now = round(time.time() * 1000)
        while self._open:
            _, child = self._open.popitem()
            self._stale.add(child.parent)
            self._store.client.set_terminated(child.id, "KILLED", now)
        self._refresh()

    def _refresh(self, but: Iterable[str] = ()) -> None:
        """Compute the means of the cells in which a run ended, but those that have an open one."""
        for parent in self._stale.difference(but):
            self._store.refresh(parent)
            self._stale.discard(parent)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Context that hides what MLflow and its libraries log: about fifty lines for a new store, retries, and
    the tracebacks of errors that they also raise."""
    import mlflow  # noqa: F401  (the import configures its loggers, so it comes first)

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
