"""Many runs: skip what is done, one fresh process each, go on after a failure, end with what came of it.

A run is done when a record of its spec's hash with status success exists; so a broken-off matrix resumes by
running it again. The runner, not the run, talks to MLflow: a run cannot be hurt by it.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

import filelock

import tasks.base
from benchmark.data import sources
from benchmark.errors import UserError
from benchmark.files import write_text
from benchmark.matrices import child, planning, processes
from benchmark.matrices.matrix import Cell, Matrix
from benchmark.models import registry
from benchmark.records import record
from benchmark.records.record import RunRecord
from benchmark.records.spec import RunSpec


class Progress(Protocol):
    """What shows the runs as they go; the command line's bars, or nothing in a test."""

    def started(self, spec: RunSpec, steps: int | None) -> None: ...
    def noted(self, note: str) -> None: ...
    def stepped(self, row: Mapping[str, Any]) -> None: ...
    def finished(self, spec: RunSpec, done: RunRecord | None, error: str | None) -> None: ...


class Tracker(Protocol):
    """The part of benchmark.tracking.tracker.Tracker that the runner uses."""

    def start(self, spec: RunSpec) -> None: ...
    def steps(self, rows: list[dict[str, Any]]) -> None: ...
    def finish(self, done: RunRecord, folder: Path) -> None: ...


class Untracked:
    """A Tracker that keeps nothing, for runs nobody looks back at."""

    def start(self, spec: RunSpec) -> None: ...
    def steps(self, rows: list[dict[str, Any]]) -> None: ...
    def finish(self, done: RunRecord, folder: Path) -> None: ...


@dataclass
class Outcome:
    """What one call of `run` did. `fixed_s`: seconds per successful run outside training and scoring."""

    ran: int = 0
    failed: int = 0
    refused: list[str] = field(default_factory=list)
    fixed_s: list[float] = field(default_factory=list)


def check(matrix: Matrix) -> None:
    """Refuse before anything runs what cannot run: unknown models, missing or damaged data."""
    for name, revision in dict.fromkeys(
        (cell.model, cell.settings.get("model_revision")) for cell in matrix.cells
    ):
        registry.source(name, revision)
    for task, source in dict.fromkeys((cell.task, cell.settings["data"]) for cell in matrix.cells):
        sources.check(tasks.base.load(task), source)


def run(
    matrix: Matrix,
    results: Path,
    *,
    tracker: Tracker,
    progress: Progress,
    limit: int | None = None,
    warm: bool = True,
) -> Outcome:
    """Run what is not done, at most `limit` runs (with the trials they need), and say what came of it.

    `warm`: runs are forked from a server that has imported everything, where that is possible. Raises
    UserError when the matrix cannot run at all or another process is running it.
    """
    check(matrix)
    scratch = results / "_scratch" / matrix.name
    scratch.mkdir(parents=True, exist_ok=True)
    outcome = Outcome()
    try:
        with (
            filelock.FileLock(scratch / "lock", timeout=0),
            processes.starter(warm, scratch / "warm.log", progress.noted) as starter,
        ):
            for spec in _to_run(matrix, results, limit, outcome):
                _run_one(spec, results, scratch, starter, tracker, progress, outcome)
    except filelock.Timeout:
        raise UserError(f"{matrix.path}: another process is running this matrix") from None
    return outcome


def _to_run(
    matrix: Matrix, results: Path, limit: int | None, outcome: Outcome
) -> Iterator[RunSpec]:
    """Specs that are not done, lazily: a cell's rate is chosen once its trials have run."""
    started = 0
    for cell in matrix.cells:
        if limit is not None and started >= limit:
            return
        rate = None
        if cell.search:
            yield from _trials_to_run(cell, results)
            try:
                rate = planning.chosen_rate(cell, results)
            except UserError:  # every trial failed, and said why itself
                states = {
                    planning.state_of(trial, results) for trial in planning.trials(cell, results)
                }
                outcome.failed += states != {"unsupported"}
                continue
            if rate is None:  # a trial was refused; its reason is in the outcome already
                continue
        for spec in cell.runs(rate):
            if planning.state_of(spec, results) not in planning.SETTLED and (
                limit is None or started < limit
            ):
                started += 1
                yield spec


def _trials_to_run(cell: Cell, results: Path) -> Iterator[RunSpec]:
    """Trials that are not done, each once: what they come to may put further rates at the end."""
    begun: set[str] = set()
    while True:
        waiting = (t for t in planning.trials(cell, results) if t.run_id not in begun)
        trial = next(
            (t for t in waiting if planning.state_of(t, results) not in planning.SETTLED), None
        )
        if trial is None:
            return
        begun.add(trial.run_id)
        yield trial


def _run_one(
    spec: RunSpec,
    results: Path,
    scratch: Path,
    starter: processes.Starter,
    tracker: Tracker,
    progress: Progress,
    outcome: Outcome,
) -> None:
    """One run in its own process; its library output goes to a log, its events to `progress`."""
    folder = planning.folder_of(spec, results)
    path = folder / f"{spec.run_id}.json"
    spec_path, log_path = scratch / f"{spec.run_id}.spec.json", scratch / f"{spec.run_id}.log"
    write_text(spec_path, spec.model_dump_json())
    variables = child.environment_of(spec)
    before = child.identity(path)
    started = time.time()
    starter.prepare(variables)
    progress.started(spec, planning.predicted_steps(spec))
    tracker.start(spec)
    outcome.ran += 1
    process = None
    with open(log_path, "w", encoding="utf-8") as log:
        try:
            arguments = [str(spec_path), str(folder)]
            process = starter.start(arguments, log, variables)
            said = _listen(process, log, tracker, progress)
            code = process.wait()
        except KeyboardInterrupt:
            if process is not None:
                process.terminate()
                process.wait()
            if child.identity(path) == before:
                child.write_unfinished(spec, path, started, "interrupted", "stopped by the user")
            else:
                tracker.finish(record.load(path), folder)
            raise
    done: RunRecord | None = None
    if child.identity(path) != before:  # the record decides, however its process ended
        done = record.load(path)
    elif said.get("event") == "refused":
        outcome.refused.append(said["error"])
    elif said:
        done = child.write_unfinished(spec, path, started, "unsupported", said["error"])
    else:
        done = child.write_unfinished(spec, path, started, "failed", child.why(code, log_path))
    if done is not None:
        tracker.finish(done, folder)
        if done.status not in ("success", "unsupported"):
            outcome.failed += 1
        elif done.times.fixed_s is not None:
            outside = time.time() - started - done.times.total_s  # process start, MLflow
            outcome.fixed_s.append(done.times.fixed_s + outside)
    progress.finished(spec, done, said.get("error"))


def _listen(
    process: processes.Process, log: TextIO, tracker: Tracker, progress: Progress
) -> dict[str, str]:
    """Pass on what a run says until its stdout ends. Returns the event that says why it stopped, if any."""
    said: dict[str, str] = {}
    assert process.stdout is not None
    for line in process.stdout:
        event = child.event(line)
        if event is None:  # a native library's own print, or a killed process's half line
            log.write(line)
        elif event["event"] == "note":
            progress.noted(event["note"])
        elif event["event"] == "step":
            progress.stepped(event)
            tracker.steps([event])
        elif "error" in event:
            said = event
    return said
