"""The report's section on learning curves: its tables and sentences, its picture, and learning.csv."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.analysis import learning
from benchmark.analysis.learning import Comparison, Level, Mean, Reach
from benchmark.analysis.summary import BUSY, Cell
from benchmark.records.record import RunRecord, read_curve
from benchmark.report import plots
from benchmark.report.pictures import Gallery, Picture, Place
from benchmark.report.tables import Table

CSV = "learning.csv"
_MEASURES = {"score": "score", "dev_loss": "held-out loss"}
_AXES: tuple[learning.Axis, ...] = ("examples", "flops", "updates")
_LEVEL = 0.05
"""Level of the tests for uneven tokens, divided by the number of runs with groups in a report."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """The section of a task and model."""

    title: str
    pictures: tuple[Picture, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...]


def sections(
    cells: Sequence[Cell],
    records: Sequence[RunRecord],
    gallery: Gallery,
    places: Sequence[Place],
) -> list[Section]:
    """The sections, one for each comparison of `places`, with its pictures."""
    written: list[Section] = []
    for of in learning.comparisons(cells, records):
        if (of.task, of.model) not in places:
            continue
        mine = [r for r in records if (r.spec["task"], r.spec["model"]) == (of.task, of.model)]
        written.append(
            Section(
                title=gallery.title((of.task, of.model)),
                pictures=tuple(_pictures(of, gallery, quiet=_quiet(mine))),
                tables=(_equal_table(of), *_reference_tables(of)),
                notes=tuple(_notes(of)),
            )
        )
    return written


def _pictures(of: Comparison, gallery: Gallery, *, quiet: bool) -> Iterator[Picture]:
    """A picture for each cost; for seconds only where no other process took much of the machine."""
    for axis, name in plots.AXES.items():
        if axis == "seconds" and not quiet:
            continue
        title = f"{gallery.title((of.task, of.model))}: along {name}"
        drawing = plots.learning_curves(of.runs, axis, title=title, colours=gallery.colours)
        yield gallery.add(drawing, f"learning-{axis}", of.task, of.model)


def _quiet(records: Iterable[RunRecord]) -> bool:
    trains = [record.train for record in records if record.train]
    return all(train.others is not None and train.others <= BUSY for train in trains)


def _equal_table(of: Comparison) -> Table:
    """Every strategy at equal examples, compute and updates."""
    levels = {axis: learning.level(of.runs, axis, of.measure) for axis in _AXES}
    body = [
        (label, *(_level_text(level, label, axis) for axis, level in levels.items()))
        for label in of.runs
    ]
    named = [f"at {_amount(level.amount, axis)}" for axis, level in levels.items()]
    return Table(
        columns=("strategy", *named),
        rows=tuple(body),
        title=f"{_MEASURES[of.measure]} of all strategies at an equal amount",
    )


def _level_text(level: Level, label: str, axis: learning.Axis) -> str:
    if label in level.means:
        return _mean_text(level.means[label])
    return f"too few: {_amount(level.short[label], axis)}"


def _reference_tables(of: Comparison) -> list[Table]:
    """A table that compares each strategy with the reference at equal cost, and says when it reaches the
    reference's final score. Empty where there is no reference."""
    if of.reference is None:
        return []
    margin = _point(of)
    body = []
    for label in of.runs:
        cells = [_difference_text(of, label, axis) for axis in _AXES]
        if of.measure == "score":
            cells += _reach_texts(learning.reach(of, label, margin))
        body.append((label, *cells))
    final = f"{of.reference}'s final score {'−' if of.higher_is_better else '+'} {margin:g}"
    reached = (f"steps to {final}", f"TFLOP to {final}") if of.measure == "score" else ()
    amounts = ("at equal examples", "at equal compute", "at equal updates per parameter")
    title = (
        f"{_MEASURES[of.measure]} minus that of {of.reference} with the same seed, at equal cost"
    )
    if reached:
        title += f"; and the cost to reach {of.reference}'s final score"
    return [Table(columns=("strategy", *amounts, *reached), rows=tuple(body), title=title)]


def _point(of: Comparison) -> float:
    """One percentage point in the unit of the score: 0.01 where it is a fraction, else 1."""
    assert of.reference is not None
    finals = [abs(run.values(of.measure)[-1]) for run in of.runs[of.reference]]
    return 0.01 if max(finals) <= 1 else 1.0


def _difference_text(of: Comparison, label: str, axis: learning.Axis) -> str:
    if label == of.reference:
        return ""
    compared = learning.against_reference(of, label, axis)
    if compared is None:
        return "not comparable"
    amount, mean = compared
    return f"{_mean_text(mean, sign='+')} at {_amount(amount, axis)}"


def _reach_texts(reach: Reach | None) -> tuple[str, str]:
    if reach is None:
        return "not comparable", "not comparable"
    if reach.steps is None or reach.flops is None:
        text = "never" if not reach.reached else f"{reach.reached} of {reach.seeds} seeds only"
        return text, text
    bound = "≤ " if reach.at_first else ""
    tera = Mean(
        reach.flops.mean / 1e12,
        None if reach.flops.std is None else reach.flops.std / 1e12,
        reach.flops.n,
    )
    return f"{bound}{_amounts_text(reach.steps, ',.0f')}", f"{bound}{_amounts_text(tera, ',.4g')}"


def _notes(of: Comparison) -> list[str]:
    notes = []
    if of.reference is None:
        notes.append(
            "No complete strategy is full fine-tuning (full) or the baseline that the matrix names, so there "
            "is no reference to compare with."
        )
    if of.measure == "dev_loss":
        notes.append(
            "The evaluations during training have no score, so the held-out loss is compared instead."
        )
    for label, (evaluated, seeds) in of.unfinished.items():
        notes.append(f"Left out: {label}; {evaluated} of {seeds} seeds have evaluations.")
    return notes


def write_csv(path: Path, records: Iterable[RunRecord]) -> None:
    """Write every evaluation during training. `updates` (of each trainable parameter) is steps / groups;
    `seconds` is the wall time of training, without evaluations, on a machine that may have been busy."""
    names = ("run_id", "task", "model", "strategy", "label", "seed", "status", "groups")
    costs = ("step", "updates", "examples", "tokens", "flops", "seconds")
    values = ("score", "dev_loss", "dev_score")
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, *costs, *values])
        for record in records:
            groups = record.params.groups if record.params else 1
            own = {"run_id": record.run_id, "status": record.status, "groups": groups}
            for at in record.evaluations:
                row = {**record.spec, **own, **vars(at), "updates": at.step / groups}
                writer.writerow([row[name] for name in (*names, *costs, *values)])


def uneven_table(records: Sequence[RunRecord], folder: Path) -> tuple[Table, int]:
    """The runs whose groups trained on unequal numbers of tokens, and the number of runs with groups.

    `folder` holds the curves; only those of the runs in the table are read.
    """
    with_groups = {r.run_id: (r, u) for r in records if (u := learning.unevenness(r)) is not None}
    body = []
    for run_id, (record, uneven) in with_groups.items():
        if uneven > learning.UNEVEN:
            means = record.train.group_tokens if record.train else []
            span = f"{min(means):.1f} to {max(means):.1f}"
            verdict = _verdict(record, folder, _LEVEL / len(with_groups))
            body.append((run_id, str(len(means)), span, f"{uneven:.0%}", verdict))
    columns = ("run", "groups", "mean tokens of a step, by group", "(max − min) / mean", "cause")
    return Table(columns=columns, rows=tuple(body), names=1), len(with_groups)


def _verdict(record: RunRecord, folder: Path, level: float) -> str:
    try:
        curve = read_curve(folder / str(record.curve))
        p = learning.by_chance(curve["tokens"], curve["group"])
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        return "unknown: its curve cannot be read"
    if p is None:
        return "unknown: too few steps"
    return f"{'chance explains it' if p >= level else 'more than chance'} (p = {p:.1g})"


def _amount(value: float | None, axis: learning.Axis) -> str:
    if value is None:
        return "no equal amount"
    if axis == "flops":
        return f"{value / 1e12:,.4g} TFLOP"
    return f"{value:,.0f} examples" if axis == "examples" else f"{value:,.4g} updates"


def _mean_text(mean: Mean, sign: str = "") -> str:
    digits = 4 if abs(mean.mean) < 2 else 2
    return _amounts_text(mean, f"{sign}.{digits}f")


def _amounts_text(mean: Mean, form: str) -> str:
    spread = f" ± {mean.std:{form.removeprefix('+')}}" if mean.std is not None else ""
    return f"{mean.mean:{form}}{spread} ({mean.n})"
