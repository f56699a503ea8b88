"""MLflow as a view on the records: live while a matrix runs, or rebuilt from records by `sync`.

The first failure of MLflow is said in one line on stderr and ends tracking; training never sees it.
Nothing appears twice, whatever is resumed, repeated or synced (`mlflow_store` says how).
"""

import contextlib
import functools
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self

from benchmark.errors import UserError
from benchmark.records.record import RunRecord
from benchmark.records.spec import RunSpec
from benchmark.tracking import values
from benchmark.tracking.mlflow_store import Child, Store

DEFAULT_URI = "sqlite:///mlflow.db"
_FLUSH_ROWS, _FLUSH_SECONDS = 100, 2.0

P = ParamSpec("P")


def tracking_uri(uri: str | None) -> str:
    """The store to use: the one given, else MLFLOW_TRACKING_URI as it is now, else a local sqlite."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def _guarded(
    method: Callable[Concatenate["Tracker", P], None],
) -> Callable[Concatenate["Tracker", P], None]:
    """`method`, whose first exception is said in one line and turns the tracker off."""

    @functools.wraps(method)
    def guard(tracker: "Tracker", *args: P.args, **kwargs: P.kwargs) -> None:
        if tracker.broken:
            return
        try:
            with _quiet():
                method(tracker, *args, **kwargs)
        except Exception as error:
            tracker.broken = True
            lines = str(error).strip().splitlines() or [""]
            reason = f"{type(error).__name__}: {lines[0][:300]}"
            print(f"hift-bench: MLflow failed, going on without it: {reason}", file=sys.stderr)

    return guard


class Tracker:
    """Context manager. `uri` as in `tracking_uri`, read now; `experiment` is made if it is missing."""

    def __init__(self, uri: str | None, experiment: str) -> None:
        self.broken = False
        self._store = Store(tracking_uri(uri), experiment)
        self._open: Child | None = None
        self._cell: str | None = None  # the parent whose means are still to be made
        self._rows: list[Mapping[str, Any]] = []
        self._flushed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    @_guarded
    def start(self, spec: RunSpec) -> None:
        """Open the run of `spec`; what an earlier attempt at the same spec left is replaced."""
        self._break_off()
        now = round(time.time() * 1000)
        self._open = self._store.create(spec.model_dump(mode="json"), spec.run_id, spec.hash, now)
        self._enter_cell(self._open.parent)
        self._store.client.update_run(self._open.parent, status="RUNNING")

    @_guarded
    def steps(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take curve rows as they come; they are sent every 2 seconds or 100 rows."""
        self._rows += rows
        waited = time.monotonic() - self._flushed
        if len(self._rows) >= _FLUSH_ROWS or waited > _FLUSH_SECONDS:
            self._flush()

    @_guarded
    def finish(self, record: RunRecord, folder: Path) -> None:
        """Complete the open run from its record, or log the record where no run of it is open."""
        child = self._open
        if child is None or (child.run_id, child.spec_hash) != (record.run_id, record.spec_hash):
            self._break_off()
            child = self._store.create_from(record)
            self._enter_cell(child.parent)
        self._flush()
        self._store.complete(child, record, folder)
        self._open = None

    @_guarded
    def report(self, out: Path) -> None:
        """Put the report's files, pictures too, on every cell this tracker has seen."""
        for cell, parent in self._store.parents.items():
            if not cell.endswith("_search"):
                self._store.client.log_artifacts(parent, str(out), "report")

    @_guarded
    def sync(self, records: Iterable[RunRecord], folder: Path) -> None:
        """Make MLflow agree with `records`; those logged as they are now are left alone."""
        parents: list[str] = []
        for record in records:
            self._store.supersede(record.spec, record.run_id, record.spec_hash)
            known = self._store.find(record.spec, record.run_id, record.spec_hash)
            if not any(run.data.tags.get("hift.record") == values.digest(record) for run in known):
                self._store.complete(self._store.create_from(record), record, folder)
            start = values.milliseconds(record.times.started)
            parents.append(self._store.parent(record.spec, start))
        for parent in dict.fromkeys(parents):
            self._store.refresh_parent(parent)

    @_guarded
    def _close(self) -> None:
        self._break_off()
        self._enter_cell(None)

    def _enter_cell(self, parent: str | None) -> None:
        """Make the means of the cell that is left: once, when its last seed is done."""
        if self._cell is not None and self._cell != parent:
            self._store.refresh_parent(self._cell)
        self._cell = parent

    def _break_off(self) -> None:
        """End a run that never got a record: it was stopped (Ctrl-C) or refused."""
        if self._open is not None:
            child, now = self._open, round(time.time() * 1000)
            self._flush()
            self._open = None
            self._store.client.set_terminated(child.id, "KILLED", now)

    def _flush(self) -> None:
        rows, self._rows, self._flushed = self._rows, [], time.monotonic()
        if self._open is not None:
            self._store.log_rows(self._open, rows)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without MLflow's and Alembic's INFO lines (a new store writes some fifty)."""
    import mlflow  # noqa: F401  (importing it sets its loggers up, so it comes first)

    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def dashboard(uri: str | None, port: int = 5000) -> tuple[str, list[str]]:
    """(address, command) of MLflow's own UI on 127.0.0.1, on a free port where `port` is taken.

    By MLflow's defaults it answers only requests whose Host is local and takes no cross-site ones.
    Raises UserError for a tracking server, which has its UI already. Sets an environment variable the
    command inherits: without it MLflow starts six job workers, which outlive a Ctrl-C.
    """
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    uri = tracking_uri(uri)
    if uri.startswith(("http://", "https://")):
        raise UserError(f"{uri}: a tracking server serves its own dashboard; open that address")
    port = _free_port(port)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return f"http://127.0.0.1:{port}", command


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise UserError(f"port {wanted}: taken, and no other port on 127.0.0.1 is free")
