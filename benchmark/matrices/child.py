"""A run's process as the runner sees it: what it is given, what it says, and a record where it left none.

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
    """What tells the file at `path` from the next one put there; None where there is none.

    A run that failed before may have left a record of the same hash, which says nothing of this process.
    """
    if not path.exists():
        return None
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def event(line: str) -> dict[str, Any] | None:
    """The event that a run's process reports on this line of its stdout; None if it is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "event" in found else None


def environment_of(spec: RunSpec) -> dict[str, str]:
    """The child's environment: this process's, less threads that libraries start when they are imported (a
    warm server could not be forked beside them), and no look at the Hub when neither data nor model come from
    it."""
    variables = os.environ | {
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "OPENBLAS_NUM_THREADS": "1",  # NumPy's and SciPy's; torch has its own
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
    }
    if spec.data != "hub" and registry.source(spec.model, spec.model_revision).kind != "hub":
        variables["HF_HUB_OFFLINE"] = "1"
    return variables


def why(code: int, log_path: Path) -> str:
    """The reason a run's process ended without a record, in one line."""
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
    """Write a record for a process that wrote none; returns the one that stands at `path` after it."""

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
            started=iso(started), finished=iso(now), total_s=round(now - started, 3)
        ),
        environment=environment.environment(),
        code=environment.code(),
    )
    with contextlib.suppress(OSError):
        return record.write(done, path)
    return done
