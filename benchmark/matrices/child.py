"""The process of a run, seen by the runner: its environment, its events, and a record if it wrote none.

The process itself is benchmark/run/recipe.py.
"""

import contextlib
import datetime
import json
import os
import time
from pathlib import Path
from typing import Any

from benchmark.models import registry
from benchmark.records import environment, record
from benchmark.records.record import RunRecord
from benchmark.records.spec import RunSpec


def identity(path: Path) -> tuple[int, int] | None:
    """Inode and modification time of the file at `path`, which change with the file; None if there is none.

    An earlier, failed run may have written a record with the same hash. The identity tells that record from
    the one that this process writes.
    """
    if not path.exists():
        return None
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def event(line: str) -> dict[str, Any] | None:
    """The event in this line of a run's stdout; None if the line is no event."""
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) and "event" in data else None


def environment_of(spec: RunSpec) -> dict[str, str]:
    """The environment variables of the run's process: those of this one, with `changes_of(spec)`."""
    return os.environ | changes_of(spec)


def changes_of(spec: RunSpec) -> dict[str, str]:
    """The environment variables that the run's process has over those of the process that starts it.

    Nothing is imported from the working directory, which may have a package `tasks` of its own. Libraries
    start no threads when they are imported, since a process with threads cannot be forked safely. The Hub is
    not asked if neither data nor model are on it.
    """
    variables = {
        "PYTHONSAFEPATH": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "OPENBLAS_NUM_THREADS": "1",  # NumPy's and SciPy's; torch has its own
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
    }
    if spec.data != "hub" and registry.source(spec.model, spec.model_revision).kind != "hub":
        variables["HF_HUB_OFFLINE"] = "1"
    return variables


def why(code: int, log_path: Path) -> str:
    """Why a run's process ended without a record, in one line. code: its exit status, as in subprocess."""
    if code == 0:
        return f"the process ended without a record; log: {log_path}"
    if code < 0:
        hint = " (killed; out of host memory?)" if code == -9 else ""
        return f"the process died of signal {-code}{hint}; log: {log_path}"
    lines = [x.strip() for x in log_path.read_text("utf-8", "replace").splitlines() if x.strip()]
    return f"{lines[-1] if lines else f'exit {code}'}; log: {log_path}"


def write_unfinished(
    spec: RunSpec, path: Path, started: float, status: Any, error: str
) -> RunRecord:
    """Write a record for a process that wrote none. Returns the record that is at `path` afterwards.

    started: seconds since the epoch. A successful record of the same spec is not replaced.
    """

    def iso(seconds: float) -> str:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        return moment.isoformat(timespec="milliseconds")

    now = time.time()
    done = RunRecord(
        run_id=spec.run_id,
        spec_hash=spec.hash,
        status=status,
        error=error,
        spec=spec.model_dump(mode="json"),
        times=record.Times(
            started=iso(started), finished=iso(now), total_s=round(max(0, now - started), 3)
        ),
        environment=environment.machine(),
        code=environment.code(),
    )
    with contextlib.suppress(OSError):
        return record.write(done, path)
    return done
