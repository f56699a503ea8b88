"""The records that a table may show: those of the present matrix, all from one data source.

A cell shows a number only if each of its seeds has a successful record with exactly the spec of the matrix.
Otherwise it shows a state, in words.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmark.errors import UserError
from benchmark.matrices import matrix as matrices
from benchmark.matrices import planning
from benchmark.matrices.matrix import Cell
from benchmark.records import consistency, record
from benchmark.records.record import RunRecord
from benchmark.records.spec import TRAINING, RunSpec

MATRICES = Path(__file__).parent.parent / "matrices"
CANNOT = ("oom", "unsupported")


@dataclass(frozen=True)
class State:
    """What a cell shows in place of a number: "not run", "cannot run here" or "fault", and the reason."""

    verdict: str
    why: str


@dataclass(frozen=True)
class Evidence:
    """A matrix and its records.

    records: run id -> its records. faults: run id -> the reason that its record must not be shown. absent:
    the reason that there are no records at all; "" if there are. notices: sentences about the whole table.
    """

    cells: tuple[Cell, ...] = ()
    records: Mapping[str, tuple[RunRecord, ...]] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    absent: str = ""
    notices: tuple[str, ...] = ()

    def cell(self, *, task: str, model: str, label: str) -> Cell | None:
        """The cell with this task, model and label; None if the matrix has none."""
        return self._places.get((task, model, label))

    def state(self, cell: Cell) -> State | None:
        """Why `cell` shows no number; None if each of its seeds has a valid record."""
        recorded = [i for i in cell.run_ids if i in self.records]
        if not recorded:
            return State("not run", "no record")
        if faults := [f"{i}: {self.faults[i]}" for i in recorded if i in self.faults]:
            return State("fault", "; ".join(faults))
        for run_id in recorded:
            (one,) = self.records[run_id]
            if one.status != "success":
                verdict = "cannot run here" if one.status in CANNOT else "fault"
                return State(verdict, f"{run_id}: {one.status}: {_line(one.error)}")
        if missing := [i for i in cell.run_ids if i not in self.records]:
            return State("fault", f"seeds missing: {', '.join(missing)}")
        scores = {i: self.records[i][0].scores for i in cell.run_ids}
        if without := [i for i, score in scores.items() if score is None]:
            return State("fault", f"success recorded without a score: {', '.join(without)}")
        if len({(s.metric, s.metric_version, s.split, s.n) for s in scores.values() if s}) > 1:
            return State("fault", "its seeds differ in metric, metric version, split or examples")
        inputs = {i: self.records[i][0].inputs for i in cell.run_ids}
        if unknown := [i for i, read in inputs.items() if read is None]:
            return State("fault", f"success recorded without what it read: {', '.join(unknown)}")
        if (
            len({(read.dataset_revision, read.model_revision) for read in inputs.values() if read})
            > 1
        ):
            return State("fault", "its seeds differ in the revision of data or model")
        return None

    def of(self, cell: Cell) -> list[RunRecord]:
        """The records of `cell`, in the order of its seeds."""
        return [one for run_id in cell.run_ids for one in self.records.get(run_id, ())]

    def mixture(self, cells: Iterable[Cell], *, real: bool) -> State | None:
        """The fault of a table whose cells have several data sources, or None.

        If the table is of `real` data, twin data and random twin models are faults as well. Cells without a
        number do not count.
        """
        valid = [cell for cell in cells if self.state(cell) is None]
        used = [one.inputs for cell in valid for one in self.of(cell) if one.inputs is not None]
        sources = Counter(inputs.dataset_source for inputs in used)
        if len(sources) > 1:
            counted = ", ".join(
                f"{name} ({count} records)" for name, count in sorted(sources.items())
            )
            return State("fault", f"data sources are mixed in this table: {counted}")
        if real and "twin" in sources:
            return State("fault", "twin data, where the real data is meant")
        if real and any(inputs.model_source == "twin" for inputs in used):
            return State("fault", "a random twin model, where the real one is meant")
        return None

    @cached_property
    def _places(self) -> dict[tuple[str, str, str], Cell]:
        return {(cell.task, cell.model, cell.label): cell for cell in self.cells}


def gather(name: str, results: Path) -> Evidence:
    """The records of the matrix `name` in `results`/`name`.

    A notice names each file that is no record or a damaged one. Raises UserError for a matrix that cannot be
    read.
    """
    path = MATRICES / f"{name}.yaml"
    if not path.is_file():
        return Evidence(absent=f"no matrix {name} in benchmark/matrices")
    loaded = matrices.load(path)
    cells = loaded.cells
    records: dict[str, list[RunRecord]] = {}
    passed_over: list[str] = []
    for one in record.load_all(results / loaded.name, note=passed_over.append):
        records.setdefault(one.run_id, []).append(one)
    notices = [f"{line}." for line in passed_over]
    if not records:
        return Evidence(cells, absent=f"no records of matrix {name}", notices=tuple(notices))
    faults: dict[str, str] = {}
    for cell in cells:
        if any(run_id in records for run_id in cell.run_ids):
            faults |= _faults(cell, records, results)
    known = {run_id for cell in cells for run_id in cell.run_ids}
    unknown = sorted(records.keys() - known)
    if unknown:
        notices.append(f"Records of no cell of the matrix, not used: {_some(unknown)}.")
    if any(one.code.get("dirty") for same in records.values() for one in same):
        notices.append("Some runs were made from code with uncommitted changes.")
    by_id = {run_id: tuple(same) for run_id, same in records.items()}
    return Evidence(cells, by_id, faults, notices=tuple(notices))


def _faults(
    cell: Cell, records: Mapping[str, Sequence[RunRecord]], results: Path
) -> dict[str, str]:
    """run id -> the reason that its record must not be shown, for the runs of `cell` with such a reason."""
    try:
        rate = planning.chosen_rate(cell, results) if cell.search else None
    except UserError as error:
        return dict.fromkeys(cell.run_ids, str(error))
    if cell.search and rate is None:
        return dict.fromkeys(cell.run_ids, "its learning-rate trials are not all on record")
    faults = {}
    for spec in cell.runs(rate):
        same = records.get(spec.run_id, ())
        if len(same) > 1:
            faults[spec.run_id] = f"{len(same)} records have this run id"
        elif same and (fault := _fault(same[0], spec)):
            faults[spec.run_id] = fault
    return faults


def _fault(one: RunRecord, spec: RunSpec) -> str:
    """The differences between the record and the matrix's `spec`, in words; "" if there are none."""
    unused = {"checkpoint_every"} | (TRAINING if spec.lr is None else set())
    expected = {name: value for name, value in spec.model_dump().items() if name not in unused}
    recorded = consistency.resolved(one)
    differing = [
        f"{name} {consistency.as_text(recorded.get(name))}, not {consistency.as_text(expected[name])}"
        for name in expected
        if consistency.as_text(recorded.get(name)) != consistency.as_text(expected[name])
    ]
    if differing:
        return f"not the matrix's run: {'; '.join(differing)}"
    if one.spec_hash != spec.hash:
        return f"not the matrix's run: hash {one.spec_hash}, not {spec.hash}"
    if one.inputs is not None and one.inputs.dataset_source != spec.data:
        return f"read {one.inputs.dataset_source} data, not {spec.data}"
    return ""


def scored_by(one: RunRecord, metric: str) -> RunRecord:
    """The record with its score by `metric` as the main score. Raises KeyError if it has no such score."""
    assert one.scores is not None
    scores = dataclasses.replace(one.scores, main=one.scores.all[metric], metric=metric)
    return dataclasses.replace(one, scores=scores)


def _line(text: str | None) -> str:
    """`text` on one line, at most 200 characters."""
    return " ".join((text or "no reason recorded").split())[:200]


def _some(names: Sequence[str], most: int = 5) -> str:
    """The first `most` names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
