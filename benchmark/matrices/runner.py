"""Runs a matrix: each run that is not done in a process of its own, on one worker or several at once.

A run is done when its record has the hash of its spec and the status success. An interrupted matrix therefore
resumes when it is run again. A failed run does not stop the ones after it. The runner talks to MLflow, not
the run, so an error of MLflow cannot end a run. Several runners may work on one results folder (pending.py).
"""

import contextlib
import queue
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmark.data import sources
from benchmark.files import check_room
from benchmark.matrices import claims, foreseen, planning
from benchmark.matrices.attempt import Attempt, Inbox
from benchmark.matrices.engines import workers
from benchmark.matrices.engines.places import Engine, Place
from benchmark.matrices.matrix import Matrix
from benchmark.matrices.pending import ALL, Pending, Share
from benchmark.matrices.planning import Planned
from benchmark.matrices.room import Limits
from benchmark.models import registry
from benchmark.records.folders import UNFINISHED, Folder
from benchmark.records.record import RunRecord
from benchmark.records.spec import RunSpec
from tasks import own

LOOK_S = 1.0
"""Seconds between two looks at what other runners have ended."""


class Progress(Protocol):
    """What shows the progress of the runs: the bars of the command line (benchmark/commands/progress.py)."""

    def started(self, spec: RunSpec, steps: int | None) -> None: ...
    def noted(self, note: str, spec: RunSpec | None = None) -> None: ...
    def stepped(self, spec: RunSpec, row: Mapping[str, Any]) -> None: ...
    def finished(self, spec: RunSpec, done: RunRecord) -> None: ...
    def dropped(self, spec: RunSpec) -> None:
        """The run that was started is made by another runner."""


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

    ends: run id -> how the run, which may be a trial, ended: trained, evaluated (if it trains nothing),
    oom, diverged, failed, refused or unsupported. unchosen: how many cells failed at every learning rate.
    refused: the reason of each refused run. fixed_s: seconds of each successful run outside training and
    scoring. removed: the folders of unfinished runs that were removed.
    """

    ends: dict[str, str] = field(default_factory=dict)
    unchosen: int = 0
    refused: list[str] = field(default_factory=list)
    fixed_s: list[float] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)

    @property
    def ended(self) -> Counter[str]:
        """How many runs ended how."""
        return Counter(self.ends.values())

    @property
    def ran(self) -> int:
        """How many runs were started."""
        return len(self.ends)

    @property
    def failed(self) -> int:
        """The runs and the cells that have no result, but for what was refused or cannot work."""
        return sum(self.ended[end] for end in ("failed", *planning.RESULTS)) + self.unchosen


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
    engine: Engine | None = None,
    room: Limits | None = None,
    share: Share = ALL,
    settled: Collection[str] = planning.SETTLED,
    limit_s: float | None = None,
) -> Outcome:
    """Run what is not done: at most `limit` runs, and the trials that they need.

    engine: where the runs are made, and how many at once; by default one at a time on this machine. room:
    decides which may be started; None: all may. share: the part of the matrix that is run.
    settled: the states of runs that are left alone. limit_s: seconds after which a run is ended. Raises
    UserError or TaskError if the matrix cannot run (see `check`), and OSError if nothing can be written.
    """
    check(matrix)
    engine = engine or workers.engine(1, warm=True)
    scratch = results / Folder.scratch / matrix.name
    for folder in (scratch, results / matrix.name):
        check_room(folder)
    with contextlib.ExitStack() as stack:
        session = _Session(
            results=results,
            scratch=scratch,
            tracker=tracker,
            progress=progress,
            pending=Pending(matrix, results, scratch, settled, limit, share),
            limit_s=limit_s,
            room=room,
            idle=list(stack.enter_context(engine(scratch, progress.noted))),
        )
        session.outcome.removed += _remove_unowned(scratch, planning.plan(matrix, results))
        session.run()
    session.outcome.unchosen = session.pending.failed
    return session.outcome


@dataclass(kw_only=True)
class _Session:
    """One call of `run`. `idle`: the places of the engine without a run."""

    results: Path
    scratch: Path
    tracker: Tracker
    progress: Progress
    pending: Pending
    limit_s: float | None
    room: Limits | None
    idle: list[Place]
    outcome: Outcome = field(default_factory=Outcome)
    running: dict[Attempt, Place] = field(default_factory=dict)
    inbox: Inbox = field(default_factory=queue.SimpleQueue)

    def run(self) -> None:
        """Run until nothing is left. If this is broken off, no process is left and each run has a record."""
        waiting = False
        try:
            while self._start() or self.pending.left:
                if not self.running and not waiting:
                    self.progress.noted("waits for runs that another runner has")
                waiting = not self.running
                self._listen()
        except BaseException as stop:
            self._break_off(stop)
            raise

    def _start(self) -> bool:
        """Give the idle places runs; whether any has one now."""
        begun = []
        while self.idle and (attempt := self._next()):
            place = self.running[attempt] = self.idle.pop(0)
            place.prepare(attempt.spec)
            begun.append(attempt)
        for attempt in begun:  # all are prepared: their servers import at the same time
            self._tell_start(attempt.spec)
            attempt.start(self.running[attempt], self.inbox, self.limit_s)
        return bool(self.running)

    def _next(self) -> Attempt | None:
        """The next run that needs a process. Why others cannot be made is recorded."""
        while taken := self.pending.take(self._fits):
            check_room(self.scratch)
            attempt = Attempt(*taken, self.results, self.scratch)
            fault = foreseen.fault(attempt.spec)
            if fault is None and self.room is not None:
                fault = self.room.fault(attempt.spec, self.idle[0].gpu)
            if fault is None:
                return attempt
            self._tell_start(attempt.spec)
            self._end(attempt, attempt.write(fault.status, fault.reason))
        return None

    def _fits(self, spec: RunSpec) -> bool:
        """Whether the next place may run it now, by the memory that is left."""
        running = [(attempt.spec, place.gpu) for attempt, place in self.running.items()]
        return self.room is None or self.room.fits(spec, self.idle[0].gpu, running)

    def _tell_start(self, spec: RunSpec) -> None:
        self.progress.started(spec, planning.predicted_steps(spec))
        self.tracker.start(spec)

    def _listen(self) -> None:
        """Pass on the next event, and end the runs whose time is over. Does not wait long if a place is idle
        and another runner may end what it waits for."""
        with contextlib.suppress(queue.Empty):
            attempt, line = self.inbox.get(timeout=self._patience())
            if attempt in self.running:  # not one that was ended for its time
                if line is None:
                    self._finish(attempt)
                elif event := attempt.event(line):
                    self._pass_on(attempt.spec, event)
        for attempt in list(self.running):
            if attempt.deadline is not None and time.monotonic() > attempt.deadline:
                attempt.kill()
                reason = f"stopped after its time limit of {self.limit_s:g} s"
                self._end(attempt, attempt.killed("timeout", reason))

    def _patience(self) -> float | None:
        """Seconds to wait for an event; None: until there is one."""
        now = time.monotonic()
        ends = [max(0.0, a.deadline - now) for a in self.running if a.deadline is not None]
        if self.idle and self.pending.left:
            ends.append(LOOK_S)
        return min(ends, default=None)

    def _pass_on(self, spec: RunSpec, event: dict[str, Any]) -> None:
        if event["event"] == "note":
            self.progress.noted(event["note"], spec)
        elif event["event"] == "step":
            self.progress.stepped(spec, event)
            self.tracker.steps(spec, [event])

    def _finish(self, attempt: Attempt) -> None:
        done = attempt.finish()
        if done is not None:
            self._end(attempt, done)
        else:  # another runner has it, and may end it
            self.progress.dropped(attempt.spec)
            self.pending.give_back(attempt.spec)
            self._free(attempt)

    def _free(self, attempt: Attempt) -> None:
        attempt.release()
        if place := self.running.pop(attempt, None):
            self.idle.append(place)

    def _end(self, attempt: Attempt, done: RunRecord) -> None:
        """Count the run, which has ended with the record `done`, and free its place."""
        spec, outcome = attempt.spec, self.outcome
        end = _end(spec, done)
        outcome.ends[spec.run_id] = end
        self.tracker.finish(done, attempt.folder)
        if end == "refused":
            outcome.refused.append(str(done.error))
        elif done.times.fixed_s is not None:
            outside = time.time() - attempt.began - done.times.total_s  # the start of the process
            outcome.fixed_s.append(done.times.fixed_s + max(0, outside))
        self.progress.finished(spec, done)
        self.pending.ended(spec)
        self._free(attempt)

    def _break_off(self, stop: BaseException) -> None:
        """Kill what runs, and record that it was interrupted; jobs go on."""
        reason = str(stop) or "stopped by the user"
        here = [attempt for attempt, place in self.running.items() if not place.lasting]
        if jobs := len(self.running) - len(here):
            self.progress.noted(f"{jobs} jobs go on; the same command waits for their runs")
        for attempt in here:
            attempt.kill()
        for attempt in here:
            done = attempt.killed("interrupted", " ".join(reason.split()))
            if done.status != "interrupted":
                self.tracker.finish(done, attempt.folder)
            attempt.release()


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
    removed = []
    for folder in unowned:
        run_id = folder.name.removesuffix(UNFINISHED).rpartition(".")[0]
        # None: a runner with other settings works on the run
        if claim := claims.take(scratch / f"{run_id}.lock"):
            shutil.rmtree(folder, ignore_errors=True)
            claim.release()
            removed.append(folder)
    return removed


def _end(spec: RunSpec, done: RunRecord) -> str:
    """How the run ended, as `Outcome.ends` says it. `done`: its record."""
    if done.status == "success":
        return "evaluated" if spec.lr is None else "trained"
    named = ("refused", "unsupported", *planning.RESULTS)
    return done.status if done.status in named else "failed"
