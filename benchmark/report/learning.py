"""The report's section on learning curves: its tables and sentences, its picture, and learning.csv."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.analysis import learning
from benchmark.analysis.learning import Comparison, Level, Mean, Reach
from benchmark.analysis.summary import Cell, Row
from benchmark.files import file_stem
from benchmark.records.record import RunRecord, read_curve
from benchmark.report import plots
from benchmark.report.tables import Table, model_name, task_name

CSV = "learning.csv"
_MEASURES = {"score": "score", "dev_loss": "held-out loss"}
_AXES: tuple[learning.Axis, ...] = ("examples", "flops", "updates")
_SURE = 0.05
"""Chance of calling any run of a report uneven beyond chance, shared among its runs with groups."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One task and model. `picture` is a file beside the report."""

    title: str
    picture: str
    text: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]


def sections(
    cells: Sequence[Cell], records: Sequence[RunRecord], rows: Sequence[Row], made: Path
) -> list[Section]:
    """Draw each comparison into made/plots, write made/learning.csv, and say what they show. Nothing is
    written where no run was looked at."""
    colours = plots.styles([row.label for row in rows])
    found: list[Section] = []
    for of in learning.comparisons(cells, records):
        name = file_stem(f"{of.task}_{of.model}")
        picture = f"plots/learning_{len(found)}_{name}.png"
        title = f"{task_name(rows, of.task)}, {model_name(rows, of.model)}"
        plots.learning_curves(made / picture, of.runs, title=title, colours=colours)
        found.append(
            Section(
                title=title,
                picture=picture,
                text=f"{title}: score and held-out loss along the runs",
                tables=(_equal_table(of), *_reference_tables(of)),
                notes=tuple(_notes(of)),
            )
        )
    if any(record.evaluations for record in records):
        write_csv(made / CSV, records)
    return found


def _equal_table(of: Comparison) -> Table:
    """Every strategy where each has spent the same."""
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
    """Each strategy and the reference, as far as both got, and how soon the reference's score is reached;
    none without a reference."""
    if of.reference is None:
        return []
    less = _point(of)
    body = []
    for label in of.runs:
        cells = [_difference_text(of, label, axis) for axis in _AXES]
        if of.measure == "score":
            cells += _reach_texts(learning.reach(of, label, less))
        body.append((label, *cells))
    final = f"{of.reference}'s final score {'−' if of.higher_is_better else '+'} {less:g}"
    reached = (f"steps to {final}", f"TFLOP to {final}") if of.measure == "score" else ()
    amounts = ("at equal examples", "at equal compute", "at equal updates per parameter")
    title = (
        f"{_MEASURES[of.measure]} less that of {of.reference} by the same seed, as far as both got"
    )
    if reached:
        title += f"; and how soon {of.reference}'s final score is near"
    return [Table(columns=("strategy", *amounts, *reached), rows=tuple(body), title=title)]


def _point(of: Comparison) -> float:
    """One point of a score: 0.01 of a fraction."""
    assert of.reference is not None
    finals = [abs(run.seen(of.measure)[-1]) for run in of.runs[of.reference]]
    return 0.01 if max(finals) <= 1 else 1.0


def _difference_text(of: Comparison, label: str, axis: learning.Axis) -> str:
    if label == of.reference:
        return ""
    found = learning.against_reference(of, label, axis)
    if found is None:
        return "not comparable"
    amount, mean = found
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
            "No finished strategy here is full fine-tuning (full), so there is no score to be held against."
        )
    if of.measure == "dev_loss":
        notes.append(
            "The looks have no score, so the held-out loss is compared, and no score is there to be reached."
        )
    for label, (looked, seeds) in of.unfinished.items():
        notes.append(f"Left out: {label}, of which {looked} of {seeds} seeds have their looks.")
    return notes


def write_csv(path: Path, records: Iterable[RunRecord]) -> None:
    """Every look of every run. `updates`: of each parameter that trains, steps / groups; `seconds` are of
    training alone, by the clock of a machine that may have been busy."""
    names = ("run_id", "task", "model", "strategy", "label", "seed", "status", "groups")
    spent = ("step", "updates", "examples", "tokens", "flops", "seconds")
    seen = ("score", "dev_loss", "dev_score")
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, *spent, *seen])
        for record in records:
            groups = record.params.groups if record.params else 1
            own = {"run_id": record.run_id, "status": record.status, "groups": groups}
            for look in record.evaluations:
                whole = {**record.spec, **own, **vars(look), "updates": look.step / groups}
                writer.writerow([whole[name] for name in (*names, *spent, *seen)])


def uneven_table(records: Sequence[RunRecord], folder: Path) -> tuple[Table, int]:
    """The runs whose groups saw different tokens, and the number of runs that say what theirs saw.

    `folder` holds the curves, read only of the runs in the table.
    """
    found = {r.run_id: (r, u) for r in records if (u := learning.unevenness(r)) is not None}
    body = []
    for run_id, (record, uneven) in found.items():
        if uneven > learning.UNEVEN:
            means = record.train.group_tokens if record.train else []
            span = f"{min(means):.1f} to {max(means):.1f}"
            verdict = _verdict(record, folder, _SURE / len(found))
            body.append((run_id, str(len(means)), span, f"{uneven:.0%}", verdict))
    columns = ("run", "groups", "tokens of a step, by group", "differ by", "why")
    return Table(columns=columns, rows=tuple(body), names=1), len(found)


def _verdict(record: RunRecord, folder: Path, least: float) -> str:
    try:
        curve = read_curve(folder / str(record.curve))
        p = learning.by_chance(curve["tokens"], curve["group"])
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        return "unknown: its curve cannot be read"
    if p is None:
        return "unknown: too few steps"
    return f"{'as chance does' if p >= least else 'more than chance explains'} (p = {p:.1g})"


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
