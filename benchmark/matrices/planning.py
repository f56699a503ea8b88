"""The runs of a matrix in order, where each stands, and the learning rates that searches chose.

Reads records and writes nothing. A run is done when a record of its spec's hash with status success exists.
"""

from dataclasses import dataclass
from pathlib import Path

import tasks.base
from benchmark.errors import UserError
from benchmark.matrices import search
from benchmark.matrices.matrix import Cell, Matrix
from benchmark.records import environment, record
from benchmark.records.spec import RunSpec


@dataclass(frozen=True)
class Planned:
    """One run of a matrix and where it stands. `spec` is None while its learning rate is searched."""

    cell: Cell
    run_id: str
    state: str
    spec: RunSpec | None
    trial: bool = False


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
