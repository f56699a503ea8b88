"""The page that compares two sets of records of the same cells: two matrices, or two folders of results."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.analysis import comparison, summary
from benchmark.analysis.comparison import BySeed, Difference
from benchmark.analysis.summary import Row
from benchmark.analysis.verdicts import Examples
from benchmark.errors import UserError
from benchmark.records import consistency
from benchmark.records.record import RunRecord
from benchmark.report.answer import difference_text
from benchmark.report.page import replace_report, write_pages
from benchmark.report.tables import Table, mebibytes, score_text

Key = tuple[str, str, str]
"""Task, model and label of a cell."""


@dataclass(frozen=True)
class Side:
    """One of the two sets: its name, its records, and the folder of the predictions that they name."""

    name: str
    records: Sequence[RunRecord]
    folder: Path

    @property
    def cells(self) -> dict[Key, list[RunRecord]]:
        """The records of each cell, by ascending seed."""
        cells: dict[Key, list[RunRecord]] = {}
        for record in sorted(self.records, key=lambda record: record.spec["seed"]):
            key = (record.spec["task"], record.spec["model"], record.spec["label"])
            cells.setdefault(key, []).append(record)
        return cells


@dataclass(frozen=True)
class _Cell:
    """The cell of a side, as `summary.rows` takes it: the runs that are recorded are all there are."""

    task: str
    model: str
    label: str
    strategy: str
    run_ids: tuple[str, ...]
    search: None = None
    is_baseline: bool = False

    def trials(self, rates: Sequence[float] = ()) -> list[Any]:
        return []


def write_comparison(one: Side, other: Side, out: Path) -> Path:
    """Write index.html and report.md on the cells that both sides have; returns the path of index.html.

    Raises UserError where they have no cell in common.
    """
    cells, others = one.cells, other.cells
    common = [key for key in cells if key in others]
    if not common:
        raise UserError(
            f"--compare: {one.name} and {other.name} have no task, model and strategy in common"
        )
    rows = {key: (_row(key, cells[key]), _row(key, others[key])) for key in common}
    differences, untested = _differences(one, other, common)
    page = {
        "name": f"{one.name} and {other.name}",
        "summary": _summary(one, other, rows, differences),
        "table": _table(one, other, rows, differences),
        "untested": untested,
        "only": [_only(one, cells, others), _only(other, others, cells)],
        "settings": _settings(one, other, cells, others, common),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        report = Path(temporary)
        write_pages(report, page, {"report.md": "compare.md.j2", "index.html": "compare.html.j2"})
        replace_report(report, out)
    return out / "index.html"


def _row(key: Key, records: Sequence[RunRecord]) -> Row:
    strategy = records[0].spec["strategy"]
    cell = _Cell(*key, strategy=strategy, run_ids=tuple(r.run_id for r in records))
    (row,) = summary.rows([cell], records)
    return row


def _differences(
    one: Side, other: Side, common: Sequence[Key]
) -> tuple[dict[Key, Difference], list[str]]:
    """The difference of the second and the first side of each cell, and a sentence for each without one."""
    found: dict[Key, Difference] = {}
    untested = []
    for place in dict.fromkeys((task, model) for task, model, _ in common):
        ours: dict[str, BySeed] = {}
        theirs: dict[str, BySeed] = {}
        first = Examples(one.folder)
        second = first.of(other.folder)
        for key in common:
            if key[:2] == place:
                try:
                    ours[key[2]] = _scores(first, one.cells[key])
                    theirs[key[2]] = _scores(second, other.cells[key])
                except UserError as error:
                    ours.pop(key[2], None)
                    untested.append(f"{', '.join(key)}: not compared: {error}")
        for label, difference in comparison.between(ours, theirs).items():
            found[*place, label] = difference
    return found, untested


def _scores(examples: Examples, records: Sequence[RunRecord]) -> BySeed:
    scored = [record for record in records if record.status == "success" and record.scores]
    return {record.spec["seed"]: examples.scores(record) for record in scored}


def _verdict(row: Row, difference: Difference | None) -> str:
    if difference is None or difference.p is None:
        return "not tested"
    if not difference.separable:
        return "not separable"
    return "better" if (difference.mean > 0) == row.higher_is_better else "worse"


def _table(
    one: Side,
    other: Side,
    rows: Mapping[Key, tuple[Row, Row]],
    differences: Mapping[Key, Difference],
) -> Table:
    body = []
    for key, (mine, theirs) in rows.items():
        difference = differences.get(key)
        ratio = "–"
        if mine.peak_bytes and theirs.peak_bytes:
            ratio = f"{theirs.peak_bytes / mine.peak_bytes:.2f}"
        memory = (mebibytes(mine.peak_bytes), mebibytes(theirs.peak_bytes), ratio)
        verdict = _verdict(mine, difference)
        scores = (mine.metric or "–", score_text(mine), score_text(theirs))
        body.append((*key, *scores, difference_text(difference), verdict, *memory))
    columns = (
        *("task", "model", "strategy", "metric", one.name, other.name, "difference, 95 %"),
        *("verdict", f"{one.name}, device MiB", f"{other.name}, device MiB", "ratio"),
    )
    return Table(columns=columns, rows=tuple(body), names=3)


def _summary(
    one: Side,
    other: Side,
    rows: Mapping[Key, tuple[Row, Row]],
    differences: Mapping[Key, Difference],
) -> str:
    verdicts = [_verdict(mine, differences.get(key)) for key, (mine, _) in rows.items()]
    counts = {name: verdicts.count(name) for name in ("better", "worse", "not separable")}
    return (
        f"{other.name} is compared with {one.name} in {len(rows)} cells (a task, a model and a strategy). "
        f"It is better in {counts['better']}, worse in {counts['worse']}, and not separable in "
        f"{counts['not separable']}; {verdicts.count('not tested')} could not be tested."
    )


def _only(side: Side, cells: Mapping[Key, object], others: Mapping[Key, object]) -> str:
    left = [", ".join(key) for key in cells if key not in others]
    return f"Only in {side.name}: {'; '.join(left)}." if left else ""


def _settings(
    one: Side,
    other: Side,
    cells: Mapping[Key, Sequence[RunRecord]],
    others: Mapping[Key, Sequence[RunRecord]],
    common: Sequence[Key],
) -> Table:
    """The settings, inputs, code and machine in which the two sides differ."""
    body: dict[tuple[str, str, str], list[str]] = {}
    for key in common:
        mine, theirs = (_facts(side[key][0]) for side in (cells, others))
        for name in mine | theirs:
            one_value, other_value = (str(facts.get(name, "–")) for facts in (mine, theirs))
            if one_value != other_value:
                body.setdefault((name, one_value, other_value), []).append(", ".join(key))
    rows = [
        (*values, "all" if len(keys) == len(common) else "; ".join(keys))
        for values, keys in body.items()
    ]
    return Table(columns=("what", one.name, other.name, "in"), rows=tuple(rows), names=4)


def _facts(record: RunRecord) -> dict[str, Any]:
    facts = {k: v for k, v in consistency.resolved(record).items() if k not in ("matrix", "seed")}
    facts |= {f"code {k}": v for k, v in consistency.flatten(record.code).items()}
    facts |= {f"environment {k}": v for k, v in consistency.flatten(record.environment).items()}
    if record.inputs:
        facts |= {
            "rows": record.inputs.dataset_fingerprint,
            "weights": record.inputs.model_fingerprint,
        }
    return facts
