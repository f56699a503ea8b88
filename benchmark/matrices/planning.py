"""The runs of a matrix in order, the state of each, and the learning rates that searches chose.

This module reads records and writes nothing. A run is done when its record has the hash of its spec and the
status success.
"""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.data import footers
from benchmark.errors import UserError
from benchmark.matrices import foreseen, search
from benchmark.matrices.foreseen import Fault
from benchmark.matrices.matrix import Cell, Matrix
from benchmark.records import environment, record
from benchmark.records.record import RunRecord
from benchmark.records.spec import RunSpec
from tasks import own

RETRIED = ("done", "unsupported")
"""States that another run on this machine would not change."""
RESULTS = ("oom", "diverged")
"""States of runs that gave no scores, which is a result: it is repeated only where a user asks for it."""
SETTLED = (*RETRIED, *RESULTS)
"""States of runs that `run` does not repeat."""

UNDECIDED = ("missing", "stale", "refused", "interrupted", "timeout")
"""States of a trial that say nothing about its learning rate."""


class Faults:
    """What is wrong with the runs of one matrix: equal for the runs of a cell, and for its trials."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str, bool], Fault | None] = {}

    def of(self, spec: RunSpec) -> Fault | None:
        """As `foreseen.fault`; files are read for the first run of a cell."""
        key = (spec.task, spec.model, spec.label, spec.is_trial)
        if key not in self._known:
            self._known[key] = foreseen.fault(spec)
        return self._known[key]


@dataclass(frozen=True)
class Planned:
    """One run of a matrix and its state (see `state_of`; "waiting" and "failed" depend on a search).

    `spec` is None while its learning rate is not known. `last`: its record, if there is one. `fault`: why the
    run cannot be made, which is then recorded without a process; a run that is done has none.
    """

    cell: Cell
    run_id: str
    state: str
    spec: RunSpec | None
    trial: bool = False
    last: RunRecord | None = field(default=None, repr=False, compare=False)
    _faults: Faults = field(default_factory=Faults, repr=False, compare=False)

    @functools.cached_property
    def fault(self) -> Fault | None:
        return self._faults.of(self.spec) if self.spec and self.state != "done" else None

    @property
    def to_do(self) -> bool:
        """Whether `hift-bench run` would start a process for it."""
        return self.state not in SETTLED and not self.fault


def folder_of(spec: RunSpec, results: Path) -> Path:
    """The folder of a run's record. Trials have a folder of their own, so that no table shows them."""
    return results / spec.matrix / "search" if spec.is_trial else results / spec.matrix


def path_of(spec: RunSpec, results: Path) -> Path:
    """The file of a run's record."""
    return folder_of(spec, results) / f"{spec.run_id}.json"


def state_of(spec: RunSpec, results: Path) -> str:
    """`done`, `missing`, `stale`, or the unsuccessful status of the record.

    A damaged record counts as missing (`damaged` names it). A record is stale if its spec has another hash,
    or if it says `unsupported` and comes from another kind of machine (`environment.same`): the run may be
    possible here. So is one whose model is to be kept and is not there.
    """
    return _last(spec, results)[0]


def _last(spec: RunSpec, results: Path) -> tuple[str, RunRecord | None]:
    """The state of the run and its record, which is read once for both; None if there is none."""
    path = path_of(spec, results)
    try:
        last = record.load(path)
    except UserError:
        return "missing", None
    elsewhere = last.status == "unsupported" and not environment.same(last.environment)
    if last.spec_hash != spec.hash or elsewhere:
        return "stale", last
    if last.status == "success" and spec.keep != "none" and not _kept(last, path.parent):
        return "stale", last
    return "done" if last.status == "success" else last.status, last


def _kept(done: RunRecord, folder: Path) -> bool:
    """Whether the trained model of the record in `folder` is there."""
    return done.model_folder is not None and (folder / done.model_folder).is_dir()


def trials(cell: Cell, results: Path) -> list[RunSpec]:
    """The trials of the cell's search; an empty list if the matrix gives the learning rate.

    Rates beyond an edge of the grid are added once all trials of the grid have run.
    """
    if cell.search is None:
        return []
    return cell.trials(search.tried(cell.search, lambda lr: _outcome(cell, lr, results)))


def chosen_rate(cell: Cell, results: Path) -> float | None:
    """The learning rate that the cell's search chose; None while a trial has not run.

    Raises UserError if every rate failed.
    """
    assert cell.search is not None
    outcomes = {}
    for rate in dict.fromkeys(trial.lr for trial in trials(cell, results)):
        assert rate is not None
        outcome = _outcome(cell, rate, results)
        if outcome is None:
            return None
        outcomes[rate] = outcome
    rate = search.chosen(cell.search, outcomes)
    if rate is None:
        raise UserError(
            f"{cell.task} {cell.model} {cell.label}: search: every learning rate failed"
        )
    return rate


def _outcome(cell: Cell, rate: float, results: Path) -> search.Outcome | None:
    """The mean score of the cell's trials at one rate; None while one of them has not run."""
    scores = []
    for trial in cell.trials([rate]):
        state, last = _last(trial, results)
        if state in UNDECIDED or last is None:
            return None
        scores.append(last.scores)
    return search.outcome_of(scores)


def plan(matrix: Matrix, results: Path) -> list[Planned]:
    """Every run of the matrix in order, trials before the runs that need them."""
    planned: list[Planned] = []
    faults = Faults()
    for cell in matrix.cells:
        for trial in trials(cell, results):
            state, last = _last(trial, results)
            planned.append(Planned(cell, trial.run_id, state, trial, True, last, faults))
        try:
            rate = chosen_rate(cell, results) if cell.search else None
        except UserError:
            planned += [Planned(cell, run_id, "failed", None) for run_id in cell.run_ids]
            continue
        if cell.search and rate is None:
            planned += [Planned(cell, run_id, "waiting", None) for run_id in cell.run_ids]
            continue
        for spec in cell.runs(rate):
            state, last = _last(spec, results)
            planned.append(Planned(cell, spec.run_id, state, spec, last=last, _faults=faults))
    return planned


def damaged(planned: Iterable[Planned], results: Path) -> Iterator[str]:
    """A line about each record that cannot be read, of the runs that are planned."""
    for p in planned:
        if p.spec is not None and p.state == "missing":
            path = path_of(p.spec, results)
            if path.exists():
                try:
                    record.load(path)
                except UserError as error:
                    yield record.passed_over(path, error)


def predicted_steps(spec: RunSpec) -> int:
    """Optimizer steps of the spec.

    A spec that trains on all rows is counted by `rows_of`; 0 if they are not known.
    """
    rows, shots = rows_of(spec, "train"), own.of(spec.task, spec.task_file).dataset.shots
    if not rows and spec.max_steps is None:
        return 0
    size = rows - (0 if shots else spec.dev_examples)
    return spec.steps(min(size, spec.train_examples or size))


def rows_of(spec: RunSpec, role: str) -> int:
    """Rows of the split for the role, `train` or `eval`: the official number, or for a task of the user's own
    that of its files; 0 if it is not known."""
    task = own.of(spec.task, spec.task_file)
    return task.dataset.sizes[role] or footers.rows(task, spec.data, role) or 0
