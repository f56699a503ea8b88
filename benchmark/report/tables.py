"""The report's tables as cells of text; the templates format them."""

import csv
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.analysis.summary import Row
from benchmark.records.consistency import Difference, as_text, flatten, settings
from benchmark.records.record import Inputs, RunRecord
from benchmark.sizes import MIB

MOST_PROBLEMS = 100
"""Most rows of the table of runs without a score."""


class Strong(str):
    """A cell that is shown in bold."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table. The first `names` and last `notes` columns have text (left-aligned), the others numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1
    notes: int = 0
    title: str = ""

    @property
    def numbers(self) -> tuple[bool, ...]:
        """Of each column, whether it has numbers."""
        last = len(self.columns) - self.notes
        return tuple(self.names <= at < last for at in range(len(self.columns)))


def score_text(row: Row) -> str:
    """The text of a score with its spreads; a count of seeds where a seed has no score."""
    if row.mean is None:
        return f"– ({row.n} of {row.seeds})"
    digits = 4 if abs(row.mean) < 2 else 2
    spread = f" ± {row.std:.{digits}f}" if row.std is not None else ""
    error = f", se {row.stderr:.{digits}f}" if row.stderr is not None else ""
    return f"{row.mean:.{digits}f}{spread} ({row.n}){error}"


def training_table(rows: Sequence[Row]) -> Table:
    """What the answer has no room for: spreads, trainable ratios, and times of the runs."""
    columns = (
        *("task", "model", "strategy", "score", "trainable ratio, peak", "trainable ratio, mean"),
        *("step, ms", "fixed cost, s"),
    )
    body = []
    for row in rows:
        ratios = (number(row.ratio_peak, ".2%"), number(row.ratio_mean, ".2%"))
        times = (number(row.step_ms, ".1f"), number(row.fixed_s, ".1f"))
        names = (task_name(rows, row.task), model_name(rows, row.model), row.label)
        body.append((*names, score_text(row), *ratios, *times))
    return Table(columns=columns, rows=tuple(body), names=3)


def problem_table(rows: Sequence[Row]) -> Table:
    """The runs without a score, those with the same status and reason in one row; the commonest first."""
    runs: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for p in row.problems:
            runs.setdefault((p.status, p.reason), []).append(p.run_id)
    common = sorted(runs.items(), key=lambda item: -len(item[1]))[:MOST_PROBLEMS]
    body = [
        (status, reason, _some(named, 5), str(len(named))) for (status, reason), named in common
    ]
    return Table(columns=("status", "reason", "runs", "number"), rows=tuple(body), names=3)


def difference_table(differences: Sequence[Difference]) -> Table:
    body = []
    for difference in differences:
        values = "; ".join(f"{value} ({_some(runs)})" for value, runs in difference.values)
        body.append((difference.field, difference.scope, values))
    return Table(columns=("field", "should be equal in", "values"), rows=tuple(body), names=3)


def settings_table(records: Sequence[RunRecord]) -> Table:
    """The settings of the compared runs, by task where they differ between tasks."""
    body = []
    for name, values in settings(records).items():
        single = len(values) == 1
        texts = [v if single else f"{v} in {', '.join(tasks)}" for v, tasks in values.items()]
        body.append((name, "; ".join(texts)))
    return Table(columns=("setting", "value"), rows=tuple(body), names=2)


def provenance_table(records: Sequence[RunRecord]) -> Table:
    """The origin of the numbers: code, machine, versions, models, data, metrics."""
    values_of: dict[str, list[str]] = {}
    for record in records:
        facts = {f"code: {k}": v for k, v in flatten(record.code).items()}
        facts |= {f"environment: {k}": v for k, v in flatten(record.environment).items()}
        if record.inputs:
            i = record.inputs
            rows_used = f"{i.examples_train} train, {i.examples_eval} evaluation"
            source = f"{i.dataset_source}, revision {i.dataset_revision or 'none'}"
            facts[f"data: {i.dataset}"] = (
                f"{source}; {rows_used} examples; {i.examples_truncated} truncated; "
                f"{_too_long(i)}task version {i.task_version}"
            )
            facts[f"model: {i.model}"] = f"{i.model_source}, revision {i.model_revision or 'none'}"
        if record.scores:
            s = record.scores
            facts[f"metric: {record.spec['task']}"] = (
                f"{s.metric} {s.metric_version} on {s.split}, {s.n} examples"
            )
        for name, value in facts.items():
            values_of.setdefault(name, []).append(as_text(value))
    if records:
        values_of["runs started"] = [min(record.times.started for record in records)]
        values_of["runs finished"] = [max(record.times.finished for record in records)]
    body = tuple((name, _some(_distinct(values))) for name, values in sorted(values_of.items()))
    return Table(columns=("what", "value"), rows=body, names=2)


def _too_long(inputs: Inputs) -> str:
    """Numbers of examples longer than max_length, by how they were handled; empty where there are none."""
    counts = {
        "too long and left out of training": inputs.long_train_dropped,
        "training prompts cut from the left": inputs.long_train_cut,
        "evaluation prompts cut from the left": inputs.long_eval_cut,
    }
    return "".join(f"{count} {what}; " for what, count in counts.items() if count)


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write every row with numbers that are not rounded, in the units that the columns name."""
    apart = ("problems", "is_baseline")
    names = [field.name for field in dataclasses.fields(Row) if field.name not in apart]
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, "problems"])
        for row in rows:
            problems = "; ".join(f"{p.run_id}: {p.status}: {p.reason}" for p in row.problems)
            writer.writerow([*(getattr(row, name) for name in names), problems])


def baseline_of(rows: Sequence[Row]) -> Row:
    """The row of a task and model that the others are compared with: the one that the matrix says, or full
    fine-tuning, or the first one."""
    said = (row for row in rows if row.is_baseline)
    full = (row for row in rows if row.strategy == "full")
    return next(said, next(full, rows[0]))


def task_name(rows: Iterable[Row], task: str) -> str:
    """The name of the task, marked where its data are generated."""
    twin = any(row.data_source == "twin" for row in rows if row.task == task)
    return f"{task} (twin data)" if twin else task


def model_name(rows: Iterable[Row], model: str) -> str:
    """The name of the model, marked where its weights are random (a twin)."""
    twin = any(row.model_source == "twin" for row in rows if row.model == model)
    return f"{model} (twin model)" if twin else model


def number(value: float | None, form: str) -> str:
    """`value` in the format `form`, "–" for None."""
    return "–" if value is None else format(value, form)


def mebibytes(count: int | None) -> str:
    """Bytes in MiB, "–" for None."""
    return "–" if count is None else f"{count / MIB:,.1f}"


def listed(names: Sequence[str], most: int | None = None) -> str:
    """The names as a sentence has them: a, b and c. Of more than `most`, the number of the others."""
    if most is not None and len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    *first, last = names or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def _some(values: Sequence[str], most: int = 3) -> str:
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(values[:most]) + more


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
