"""Pending: what is left to run of a matrix, handed out one run at a time, and never to two runners.

A run is handed out with a claim (claims.py). One that another runner has claimed is passed over. Once it has
ended there, its record says so; if that runner was stopped or killed, the run is handed out here. No run is
handed out twice, and none that another runner has ended since this one began.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.errors import UserError
from benchmark.matrices import child, claims, planning
from benchmark.matrices.claims import Claim
from benchmark.matrices.matrix import Cell, Matrix
from benchmark.matrices.planning import Planned
from benchmark.records.spec import RunSpec


@dataclass(frozen=True)
class Share:
    """The part of a matrix that one of several runners takes, of which each has another `number` from 1 to
    `of`. A cell that searches its learning rate is in one part, of other cells each run is by itself."""

    number: int = 1
    of: int = 1

    def cells(self, cells: Sequence[Cell]) -> list[tuple[Cell, frozenset[str]]]:
        """The cells of this part, each with the ids of its runs (trials aside) that are in it."""
        parts: list[tuple[Cell, frozenset[str]]] = []
        position = 0
        for cell in cells:
            units = [cell.run_ids] if cell.search else [(run_id,) for run_id in cell.run_ids]
            own = [
                run_id
                for place, unit in enumerate(units, start=position)
                if place % self.of == self.number - 1
                for run_id in unit
            ]
            position += len(units)
            if own:
                parts.append((cell, frozenset(own)))
        return parts

    def part(self, planned: Iterable[Planned], cells: Sequence[Cell]) -> list[Planned]:
        """Those of the `planned` runs of a matrix that are in this part, with the trials that they need."""
        own = {(cell.task, cell.model, cell.label): run_ids for cell, run_ids in self.cells(cells)}
        return [
            p
            for p in planned
            if (run_ids := own.get((p.cell.task, p.cell.model, p.cell.label)))
            and (p.trial or p.run_id in run_ids)
        ]


ALL = Share()
"""The whole matrix."""


@dataclass
class Pending:
    """What is left of `share` of the matrix, whose records are below `results`.

    settled: the states of `planning.state_of` in which a run is left alone. limit: at most so many runs are
    handed out, and the trials that they need. scratch: the folder of the locks. failed: how many cells have
    failed at every learning rate, as far as is known.
    """

    matrix: Matrix
    results: Path
    scratch: Path
    settled: Collection[str] = planning.SETTLED
    limit: int | None = None
    share: Share = ALL
    failed: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._cells = self.share.cells(self.matrix.cells)
        folder = self.results / self.matrix.name
        self._before = {path: child.identity(path) for path in folder.rglob("*.json")}
        self._started: set[str] = set()
        self._ended: set[str] = set()
        self._runs = 0

    def take(self, fits: Callable[[RunSpec], bool]) -> tuple[RunSpec, Claim] | None:
        """The next run that `fits` beside those that run, claimed; None if there is none now. Then those that
        do not fit or that others have claimed may be left, and trials that have not ended (`left`)."""
        room = None if self.limit is None else self.limit - self._runs
        for part in list(self._cells):
            if room is not None and room <= 0:
                return None
            first = None
            for spec in self._open(*part):
                first = first or spec
                if spec.run_id in self._started or not fits(spec):
                    continue
                if claim := self._claim(spec):
                    self._started.add(spec.run_id)
                    self._runs += not spec.is_trial
                    return spec, claim
            if first is None:
                self._cells.remove(part)
            elif room is not None and first.is_trial:
                room -= len(part[1])  # which the trials of the next cell must not take
        return None

    def ended(self, spec: RunSpec) -> None:
        """The run that `take` returned has ended, with a record or without one."""
        self._ended.add(spec.run_id)

    def give_back(self, spec: RunSpec) -> None:
        """The run that `take` returned was not made, as another runner has claimed it."""
        self._started.discard(spec.run_id)
        self._runs -= not spec.is_trial

    @property
    def left(self) -> bool:
        """Whether a later `take` may return a run, once runs that are running have ended."""
        return bool(self._cells) and (self.limit is None or self._runs < self.limit)

    def _claim(self, spec: RunSpec) -> Claim | None:
        claim = claims.take(self.scratch / f"{spec.run_id}.lock")
        if claim is not None and self._has_ended(spec):  # another runner was faster
            claim.release()
            return None
        return claim

    def _open(self, cell: Cell, own: Collection[str]) -> Iterable[RunSpec]:
        """The runs of the cell that can be started now, or have been and have not ended, each looked up when
        it is reached; its trials before its other runs. Empty: nothing will come of it any more."""
        rate = None
        if cell.search:
            trials = [t for t in planning.trials(cell, self.results) if not self._has_ended(t)]
            if trials:
                return trials
            try:
                rate = planning.chosen_rate(cell, self.results)
            except UserError:  # every trial failed, and each has reported its reason
                every = planning.trials(cell, self.results)
                states = {planning.state_of(trial, self.results) for trial in every}
                self.failed += states != {"unsupported"}
                return []
            if rate is None:  # a trial was refused; its record has the reason
                return []
        return (s for s in cell.runs(rate) if s.run_id in own and not self._has_ended(s))

    def _has_ended(self, spec: RunSpec) -> bool:
        """Whether the run is settled, or has a record that is newer than this object.

        A record that says `interrupted` is that of a runner that was stopped, so the run is still open.
        """
        if (
            spec.run_id in self._started
        ):  # the runner says when: its record need not be read at each look
            return spec.run_id in self._ended
        state = planning.state_of(spec, self.results)
        if state in self.settled:
            return True
        path = planning.path_of(spec, self.results)
        is_new = child.identity(path) not in (None, self._before.get(path))
        return is_new and state not in ("interrupted", "stale", "missing")
