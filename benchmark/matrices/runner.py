"""Many runs: skip what is done, one fresh process each, go on after a failure, end with what came of it.

A run is done when a record of its spec's hash with status success exists; so a broken-off matrix resumes by
running it again. The runner, not the run, talks to MLflow: a run cannot be hurt by it.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import filelock

import tasks.base
from benchmark.data import examples
from benchmark.errors import UserError
from benchmark.matrices import child, search
from benchmark.matrices.matrix import Cell, Matrix
from benchmark.models import registry
from benchmark.records import environment, jsonfile, record
from benchmark.records.record import RunRecord
from benchmark.records.spec import RunSpec


@dataclass(frozen=True)
class Planned:
    """One run of a matrix and where it stands. `spec` is None while its learning rate is searched."""

    cell: Cell
    run_id: str
    state: str
    spec: RunSpec | None
    trial: bool = False


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


def folder_of(spec: RunSpec, results: Path) -> Path:
    """Where a run's record lies: trials apart from the runs that tables show."""
    return results / spec.matrix / "search" if spec.is_trial else results / spec.matrix


SETTLED = ("done", "unsupported")
"""States that running again on this machine would not change."""


def state_of(spec: RunSpec, results: Path) -> str:
    """done, missing, stale or the unsuccessful status on record.

    Stale is a record of another spec, or an `unsupported` that `environment.same` does not take for this
    machine's: there the run may be possible.
    """
    path = folder_of(spec, results) / f"{spec.run_id}.json"
    if not path.exists():
        return "missing"
    found = record.load(path)
    elsewhere = found.status == "unsupported" and not environment.same(found.environment)
    if found.spec_hash != spec.hash or elsewhere:
        return "stale"
    return "done" if found.status == "success" else found.status


def trials(cell: Cell, results: Path) -> list[RunSpec]:
    """The trials of the cell's search, as far as their rates are known: those beyond an edge of the grid
    follow once the grid has run. None where the rate is given."""
    if cell.search is None:
        return []
    return cell.trials(search.tried(cell.search, lambda lr: _outcome(cell, lr, results)))


def chosen_rate(cell: Cell, results: Path) -> float | None:
    """The learning rate that the cell's search takes; None while a trial is still to run. Raises UserError
    when every rate failed."""
    assert cell.search is not None
    found = {}
    for rate in dict.fromkeys(trial.lr for trial in trials(cell, results)):
        assert rate is not None
        came_to = _outcome(cell, rate, results)
        if came_to is None:
            return None
        found[rate] = came_to
    rate = search.chosen(cell.search, found)
    if rate is None:
        raise UserError(
            f"{cell.task} {cell.model} {cell.label}: search: every learning rate failed"
        )
    return rate


def _outcome(cell: Cell, rate: float, results: Path) -> search.Outcome | None:
    """What the cell's trials at one rate came to; None while one of them is still to run."""
    scores = []
    for trial in cell.trials([rate]):
        if state_of(trial, results) in ("missing", "stale", "interrupted"):
            return None
        scores.append(record.load(folder_of(trial, results) / f"{trial.run_id}.json").scores)
    return search.outcome_of(scores)


def plan(matrix: Matrix, results: Path) -> list[Planned]:
    """Every run of the matrix in order, trials before the runs that need them."""
    planned = []
    for cell in matrix.cells:
        for trial in trials(cell, results):
            planned.append(Planned(cell, trial.run_id, state_of(trial, results), trial, trial=True))
        try:
            rate = chosen_rate(cell, results) if cell.search else None
        except UserError:
            planned += [Planned(cell, run_id, "failed", None) for run_id in cell.run_ids]
            continue
        if cell.search and rate is None:
            planned += [Planned(cell, run_id, "waiting", None) for run_id in cell.run_ids]
            continue
        for spec in cell.runs(rate):
            planned.append(Planned(cell, spec.run_id, state_of(spec, results), spec))
    return planned


def predicted_steps(spec: RunSpec) -> int:
    """Optimizer steps from the spec and, where it takes all of train, the official row count."""
    dataset = tasks.base.load(spec.task).dataset
    size = dataset.sizes["train"] - (0 if dataset.shots else spec.dev_examples)
    return spec.steps(min(size, spec.train_examples or size))


def check(matrix: Matrix) -> None:
    """Refuse before anything runs what cannot run: unknown models, missing or damaged data."""
    for name, revision in dict.fromkeys(
        (cell.model, cell.settings.get("model_revision")) for cell in matrix.cells
    ):
        registry.source(name, revision)
    for task, source in dict.fromkeys((cell.task, cell.settings["data"]) for cell in matrix.cells):
        examples.check(tasks.base.load(task), source)


def run(
    matrix: Matrix,
    results: Path,
    *,
    tracker: Tracker,
    progress: Progress,
    limit: int | None = None,
) -> Outcome:
    """Run what is not done, at most `limit` runs (with the trials they need), and say what came of it.

    Raises UserError when the matrix cannot run at all or another process is running it.
    """
    check(matrix)
    scratch = results / "_scratch" / matrix.name
    scratch.mkdir(parents=True, exist_ok=True)
    outcome = Outcome()
    try:
        with filelock.FileLock(scratch / "lock", timeout=0):
            for spec in _to_run(matrix, results, limit, outcome):
                _run_one(spec, results, scratch, tracker, progress, outcome)
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
                rate = chosen_rate(cell, results)
            except UserError:  # every trial failed, and said why itself
                states = {state_of(trial, results) for trial in trials(cell, results)}
                outcome.failed += states != {"unsupported"}
                continue
            if rate is None:  # a trial was refused; its reason is in the outcome already
                continue
        for spec in cell.runs(rate):
            if state_of(spec, results) not in SETTLED and (limit is None or started < limit):
                started += 1
                yield spec


def _trials_to_run(cell: Cell, results: Path) -> Iterator[RunSpec]:
    """Trials that are not done, each once: what they come to may put further rates at the end."""
    begun: set[str] = set()
    while True:
        waiting = (t for t in trials(cell, results) if t.run_id not in begun)
        trial = next((t for t in waiting if state_of(t, results) not in SETTLED), None)
        if trial is None:
            return
        begun.add(trial.run_id)
        yield trial


def _run_one(
    spec: RunSpec,
    results: Path,
    scratch: Path,
    tracker: Tracker,
    progress: Progress,
    outcome: Outcome,
) -> None:
    """One run in its own process; its library output goes to a log, its events to `progress`."""
    folder = folder_of(spec, results)
    path = folder / f"{spec.run_id}.json"
    spec_path, log_path = scratch / f"{spec.run_id}.spec.json", scratch / f"{spec.run_id}.log"
    jsonfile.write_text(spec_path, spec.model_dump_json())
    before = child.identity(path)
    started = time.time()
    progress.started(spec, predicted_steps(spec))
    tracker.start(spec)
    outcome.ran += 1
    said: dict[str, str] = {}
    command = [sys.executable, "-m", "benchmark.run.recipe", str(spec_path), str(folder)]
    with open(log_path, "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=child.environment_of(spec)
        )
        try:
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
            code = process.wait()
        except KeyboardInterrupt:
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
