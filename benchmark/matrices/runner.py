"""Runs a matrix: each run that is not done, one after the other, in a process of its own.

A run is done when its record has the hash of its spec and the status success. An interrupted matrix therefore
resumes when it is run again. A failed run does not stop the ones after it. The runner talks to MLflow, not
the run, so an error of MLflow cannot end a run.
"""

import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

import filelock

from benchmark.data import sources
from benchmark.errors import UserError
from benchmark.files import write_text
from benchmark.matrices import child, foreseen, planning, processes
from benchmark.matrices.foreseen import Fault
from benchmark.matrices.matrix import Cell, Matrix
from benchmark.matrices.planning import Planned
from benchmark.models import registry
from benchmark.records import record
from benchmark.records.folders import UNFINISHED, Folder
from benchmark.records.record import RunRecord
from benchmark.records.spec import RunSpec
from tasks import own


class Progress(Protocol):
    """What shows the progress of the runs: the bars of the command line (benchmark/commands/progress.py)."""

    def started(self, spec: RunSpec, steps: int | None) -> None: ...
    def noted(self, note: str) -> None: ...
    def stepped(self, row: Mapping[str, Any]) -> None: ...
    def finished(self, spec: RunSpec, done: RunRecord) -> None: ...


class Tracker(Protocol):
    """The part of benchmark.tracking.tracker.Tracker that the runner uses."""

    def start(self, spec: RunSpec) -> None: ...
    def steps(self, spec: RunSpec, rows: list[dict[str, Any]]) -> None: ...
    def finish(self, done: RunRecord, folder: Path) -> None: ...


class Untracked:
    """A Tracker that logs nothing, for runs that need no dashboard."""

    def start(self, spec: RunSpec) -> None: ...
    def steps(self, spec: RunSpec, rows: list[dict[str, Any]]) -> None: ...
    def finish(self, done: RunRecord, folder: Path) -> None: ...


@dataclass
class Outcome:
    """What one call of `run` did.

    ended: how many runs, trials included, ended how: trained, evaluated (a run that trains nothing), failed,
    refused or unsupported. failed: the failed runs, and the cells whose every learning rate failed. refused:
    the reason of each refused run. fixed_s: seconds of each successful run outside training and scoring.
    removed: the folders of unfinished runs that were removed.
    """

    ended: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    refused: list[str] = field(default_factory=list)
    fixed_s: list[float] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)

    @property
    def ran(self) -> int:
        """How many runs were started."""
        return self.ended.total()


def check(matrix: Matrix) -> None:
    """Raises UserError or TaskError, before any run starts, for an unknown model and for missing or damaged
    data."""
    for name, revision in dict.fromkeys(
        (cell.model, cell.settings.get("model_revision")) for cell in matrix.cells
    ):
        registry.source(name, revision)
    for task, file, source in dict.fromkeys(
        (cell.task, cell.settings.get("task_file"), cell.settings["data"]) for cell in matrix.cells
    ):
        sources.check(own.of(task, file), source)


def run(
    matrix: Matrix,
    results: Path,
    *,
    tracker: Tracker,
    progress: Progress,
    limit: int | None = None,
    warm: bool = True,
) -> Outcome:
    """Run what is not done: at most `limit` runs, and the trials that they need.

    warm: fork the runs from a server that has imported all libraries, where the system allows it. Raises
    UserError or TaskError if the matrix cannot run (see `check`), and UserError if another process runs it.
    """
    check(matrix)
    scratch = results / Folder.scratch / matrix.name
    scratch.mkdir(parents=True, exist_ok=True)
    outcome = Outcome()
    try:
        with (
            filelock.FileLock(scratch / "lock", timeout=0),
            processes.starter(warm, scratch / "warm.log", progress.noted) as starter,
        ):
            outcome.removed += _remove_unowned(scratch, planning.plan(matrix, results))
            for spec in _to_run(matrix, results, limit, outcome):
                if fault := foreseen.fault(spec):
                    _refuse(spec, fault, results, tracker, progress, outcome)
                else:
                    _run_one(spec, results, scratch, starter, tracker, progress, outcome)
    except filelock.Timeout:
        raise UserError(f"{matrix.path}: another process is running this matrix") from None
    return outcome


def _to_run(
    matrix: Matrix, results: Path, limit: int | None, outcome: Outcome
) -> Iterator[RunSpec]:
    """The specs that are not done, one at a time: trials run before their cell's rate is chosen."""
    started = 0
    for cell in matrix.cells:
        if limit is not None and started >= limit:
            return
        rate = None
        if cell.search:
            yield from _trials_to_run(cell, results)
            try:
                rate = planning.chosen_rate(cell, results)
            except UserError:  # every trial failed, and each has reported its reason
                states = {
                    planning.state_of(trial, results) for trial in planning.trials(cell, results)
                }
                outcome.failed += states != {"unsupported"}
                continue
            if rate is None:  # a trial was refused; the outcome has its reason
                continue
        for spec in cell.runs(rate):
            if planning.state_of(spec, results) not in planning.SETTLED and (
                limit is None or started < limit
            ):
                started += 1
                yield spec


def _remove_unowned(scratch: Path, planned: Iterable[Planned]) -> list[Path]:
    """Remove the state of unfinished runs that no run still to do goes on from; returns their folders.

    Such a state has all trained weights. It is left over where the settings of a run that was killed were
    changed. A run whose learning rate is not chosen yet may go on from any state with its run id.
    """
    pending = [p for p in planned if p.state not in planning.SETTLED]
    kept = {p.spec.stem for p in pending if p.spec}
    waiting = {p.run_id for p in pending if p.spec is None}
    unowned = [
        folder
        for folder in sorted(scratch.glob(f"*{UNFINISHED}"))
        if (stem := folder.name.removesuffix(UNFINISHED)) not in kept
        and stem.rpartition(".")[0] not in waiting
    ]
    for folder in unowned:
        shutil.rmtree(folder, ignore_errors=True)
    return unowned


def _trials_to_run(cell: Cell, results: Path) -> Iterator[RunSpec]:
    """The trials that are not done, each once. The scores of a grid may add rates beyond its edge."""
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


def _refuse(
    spec: RunSpec,
    fault: Fault,
    results: Path,
    tracker: Tracker,
    progress: Progress,
    outcome: Outcome,
) -> None:
    """Record why the run cannot be made, without a process."""
    folder, path = planning.folder_of(spec, results), planning.path_of(spec, results)
    progress.started(spec, planning.predicted_steps(spec))
    tracker.start(spec)
    done = child.write_unfinished(spec, path, time.time(), fault.status, fault.reason)
    end = _end(spec, done)
    outcome.ended[end] += 1
    if end == "refused":
        outcome.refused.append(fault.reason)
    tracker.finish(done, folder)
    progress.finished(spec, done)


def _run_one(
    spec: RunSpec,
    results: Path,
    scratch: Path,
    starter: processes.Starter,
    tracker: Tracker,
    progress: Progress,
    outcome: Outcome,
) -> None:
    """Run `spec` in a process of its own.

    Its events go to `progress` and `tracker`, all else that it prints to a log in `scratch`.
    """
    folder, path = planning.folder_of(spec, results), planning.path_of(spec, results)
    spec_path, log_path = scratch / f"{spec.run_id}.spec.json", scratch / f"{spec.run_id}.log"
    write_text(spec_path, spec.model_dump_json())
    variables = child.environment_of(spec)
    before = child.identity(path)
    started = time.time()
    starter.prepare(variables)
    progress.started(spec, planning.predicted_steps(spec))
    tracker.start(spec)
    process = None
    with open(log_path, "w", encoding="utf-8") as log:
        try:
            arguments = [str(spec_path), str(folder)]
            process = starter.start(arguments, log, variables)
            stopped = _listen(spec, process, log, tracker, progress)
            code = process.wait()
        except KeyboardInterrupt as stop:
            if process is not None:
                process.kill()  # whatever it does; all that it writes is whole
                process.wait()
            if child.identity(path) == before:
                reason = str(stop) or "stopped by the user"
                child.write_unfinished(spec, path, started, "interrupted", reason)
            else:
                tracker.finish(record.load(path), folder)
            raise
    if child.identity(path) != before:  # a new record counts, whatever the exit status
        done = record.load(path)
    elif stopped:  # its event, refused or unsupported, is the status
        done = child.write_unfinished(spec, path, started, stopped["event"], stopped["error"])
    else:
        status = "interrupted" if code == -signal.SIGTERM else "failed"
        done = child.write_unfinished(spec, path, started, status, child.why(code, log_path))
    end = _end(spec, done)
    outcome.ended[end] += 1
    tracker.finish(done, folder)
    if end == "refused":
        outcome.refused.append(str(done.error))
    elif end == "failed":
        outcome.failed += 1
    elif done.times.fixed_s is not None:
        outside = time.time() - started - done.times.total_s  # the start of the process
        outcome.fixed_s.append(done.times.fixed_s + outside)
    progress.finished(spec, done)


def _end(spec: RunSpec, done: RunRecord) -> str:
    """How the run ended, as `Outcome.ended` counts it. `done`: its record."""
    if done.status == "success":
        return "evaluated" if spec.lr is None else "trained"
    return done.status if done.status in ("refused", "unsupported") else "failed"


def _listen(
    spec: RunSpec,
    process: processes.Process,
    log: TextIO,
    tracker: Tracker,
    progress: Progress,
) -> dict[str, str]:
    """Pass on the events of a run until its stdout ends.

    Returns the event "refused" or "unsupported", which gives the reason that it stopped; {} if there is none.
    """
    stopped: dict[str, str] = {}
    assert process.stdout is not None
    for line in process.stdout:
        event = child.event(line)
        if event is None:  # printed by a native library, or cut off when the process was killed
            log.write(line)
        elif event["event"] == "note":
            progress.noted(event["note"])
        elif event["event"] == "step":
            progress.stepped(event)
            tracker.steps(spec, [event])
        elif "error" in event:
            stopped = event
    return stopped
