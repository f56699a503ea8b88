"""Logs runs to MLflow, live while a matrix runs, or from the records by `sync`.

The first failure of MLflow prints one line on stderr and ends tracking; the runs go on. Each run appears
once, however often it is resumed, repeated or synced (`mlflow_store.Store` replaces earlier versions).
"""

import contextlib
import functools
import logging
import os
import socket
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self

from benchmark.errors import UserError, nearest
from benchmark.records.record import RunRecord
from benchmark.records.spec import RunSpec
from benchmark.tracking import values
from benchmark.tracking.mlflow_store import Child, Store

DEFAULT_URI = "sqlite:///mlflow.db"
SCHEMES = (
    *("", "file", "http", "https", "sqlite", "postgresql", "mysql", "mssql"),
    *("databricks", "databricks-uc", "uc"),
)
"""Those of the stores that MLflow comes with; "" is a folder."""
_FLUSH_ROWS, _FLUSH_SECONDS = 100, 2.0

P = ParamSpec("P")


def tracking_uri(uri: str | None) -> str:
    """The URI of the store: `uri` if it is given, else MLFLOW_TRACKING_URI, else a local sqlite file.

    Raises UserError for a scheme that MLflow has no store for.
    """
    found = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    scheme = urllib.parse.urlsplit(found).scheme.partition("+")[0]
    plugins = (entry.name for entry in entry_points(group="mlflow.tracking_store"))
    if scheme not in (schemes := {*SCHEMES, *plugins}):
        known = nearest(scheme, schemes - {""})
        raise UserError(f"tracking URI {found}: MLflow has no store {scheme}://{known}")
    return found


def _guarded(
    method: Callable[Concatenate["Tracker", P], None],
) -> Callable[Concatenate["Tracker", P], None]:
    """Wrap `method` so that its first exception prints one line and turns the tracker off."""

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
            print(f"hift-bench: MLflow failed, continuing without it: {reason}", file=sys.stderr)

    return guard


class Tracker:
    """Context manager that logs to `experiment`, which is created where missing. `uri` is as in
    `tracking_uri`, whose environment variable is read on construction.

    No method raises an exception of MLflow's (see the module). KeyboardInterrupt passes through.
    """

    def __init__(self, uri: str | None, experiment: str) -> None:
        self.broken = False
        self._store = Store(tracking_uri(uri), experiment)
        self._open: Child | None = None
        self._cell: str | None = None  # the parent run whose means are not computed yet
        self._rows: list[Mapping[str, Any]] = []
        self._flushed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    @_guarded
    def start(self, spec: RunSpec) -> None:
        """Open a run for `spec`. It replaces the run of an earlier attempt at the same spec."""
        self._kill_open()
        now = round(time.time() * 1000)
        self._open = self._store.create(spec.model_dump(mode="json"), spec.run_id, spec.hash, now)
        self._enter_cell(self._open.parent)
        self._store.client.update_run(self._open.parent, status="RUNNING")

    @_guarded
    def steps(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add curve rows to the open run. They are sent in batches, every 2 seconds or 100 rows."""
        self._rows += rows
        waited = time.monotonic() - self._flushed
        if len(self._rows) >= _FLUSH_ROWS or waited > _FLUSH_SECONDS:
            self._flush()

    @_guarded
    def finish(self, record: RunRecord, folder: Path) -> None:
        """Complete the open run from its record. Where another or no run is open, log the whole record."""
        child = self._open
        if child is None or (child.run_id, child.spec_hash) != (record.run_id, record.spec_hash):
            self._kill_open()
            child = self._store.create_from(record)
            self._enter_cell(child.parent)
        self._flush()
        self._store.complete(child, record, folder)
        self._open = None

    @_guarded
    def report(self, out: Path) -> None:
        """Attach the files of the report folder `out` to every cell that this tracker logged."""
        for cell, parent in self._store.parents.items():
            if not cell.endswith("_search"):
                self._store.client.log_artifacts(parent, str(out), "report")

    @_guarded
    def sync(self, records: Iterable[RunRecord], folder: Path) -> None:
        """Log `records`, whose files lie in `folder`. Records logged with equal content are skipped."""
        parents: list[str] = []
        for record in records:
            self._store.supersede(record.spec, record.run_id, record.spec_hash)
            runs = self._store.find(record.spec, record.run_id, record.spec_hash)
            if not any(run.data.tags.get("hift.record") == values.digest(record) for run in runs):
                self._store.complete(self._store.create_from(record), record, folder)
            start = values.milliseconds(record.times.started)
            parents.append(self._store.parent(record.spec, start))
        for parent in dict.fromkeys(parents):
            self._store.refresh_parent(parent)

    @_guarded
    def _close(self) -> None:
        self._kill_open()
        self._enter_cell(None)

    def _enter_cell(self, parent: str | None) -> None:
        """Note the cell whose runs come next. When the cell changes, the last one's means are computed."""
        if self._cell is not None and self._cell != parent:
            self._store.refresh_parent(self._cell)
        self._cell = parent

    def _kill_open(self) -> None:
        """Mark the open run KILLED. It has no record, because it was stopped (Ctrl-C) or refused."""
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
    """Context that hides the INFO lines of MLflow and Alembic (about fifty for a new store)."""
    import mlflow  # noqa: F401  (the import configures its loggers, so it comes first)

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
    """Address and command of MLflow's UI on 127.0.0.1 at `port`, or at a free port where that is taken.

    By MLflow's defaults the UI refuses requests for another host and cross-site requests. Raises UserError
    where `uri` is a tracking server, which has a UI already. Sets an environment variable that the command
    inherits; without it MLflow starts six job workers, which Ctrl-C does not end.
    """
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    uri = tracking_uri(uri)
    if uri.startswith(("http://", "https://")):
        raise UserError(f"{uri}: a tracking server has its own dashboard; open that address")
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
    raise UserError(f"port {wanted}: in use, and no other port on 127.0.0.1 is free")
