"""The answer of a report for a terminal: a table of each task and model, and lines on what has no score."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmark.analysis.summary import Row
from benchmark.analysis.verdicts import Verdict
from benchmark.records.record import RunRecord
from benchmark.report import answer, knobs
from benchmark.report.tables import baseline_of, mebibytes, model_name, task_name
from benchmark.report.verdicts import word
from benchmark.timing.speed_record import Timed


class Shown(NamedTuple):
    """The table of a task and model: a title that names them, and a row for each strategy."""

    title: str
    rows: list[dict[str, str]]


def tables(
    rows: Sequence[Row],
    records: Iterable[RunRecord],
    verdicts: Iterable[Verdict],
    timings: Iterable[Timed],
) -> list[Shown]:
    """A table for each task and model, in the order of `rows`.

    It has the score with its 95 % interval, the verdict on the difference from the baseline, device memory in
    MiB, step time over that of full fine-tuning, and seeds.
    """
    of_place = {(of.task, of.model): of for of in verdicts}
    ratios = knobs.step_ratios(rows, records, timings)
    by_place: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_place.setdefault((row.task, row.model), []).append(row)
    return [
        Shown(
            f"{task_name(rows, task)}, {model_name(rows, model)}",
            _table(mine, of_place.get((task, model)), ratios),
        )
        for (task, model), mine in by_place.items()
    ]


def notes(rows: Sequence[Row], verdicts: Iterable[Verdict]) -> Iterator[str]:
    """What is reached without training, and why runs have no score: a line for each reason."""
    yield from answer.untrained_lines(rows, {(of.task, of.model): of for of in verdicts})
    labels: dict[str, dict[str, int]] = {}
    for row in rows:
        for problem in row.problems:
            of_reason = labels.setdefault(f"{problem.status}: {problem.reason}", {})
            of_reason[row.label] = of_reason.get(row.label, 0) + 1
    for reason, counts in labels.items():
        yield f"{sum(counts.values())} {reason} ({', '.join(counts)})"


def _table(
    rows: Sequence[Row], of: Verdict | None, ratios: Mapping[Row, str]
) -> list[dict[str, str]]:
    first = baseline_of(rows)
    metric = next((row.metric for row in rows if row.metric), "score")
    return [
        {
            "strategy": row.label,
            f"{metric} [95 %]": _score(row, of),
            f"beside {first.label}": "baseline" if row is first else word(of, row, first),
            "MiB": mebibytes(row.peak_bytes),
            "step": ratios.get(row, ""),
            "seeds": str(row.n) if row.complete else f"{row.n} of {row.seeds}",
        }
        for row in rows
    ]


def _score(row: Row, of: Verdict | None) -> str:
    """The score, or the mean so far with the number of seeds that it is of."""
    if row.so_far is None:
        return answer.score_cell(row, of) if row.mean is not None else "–"
    digits = 4 if abs(row.so_far) < 2 else 2
    return f"{row.so_far:.{digits}f} ({row.n} of {row.seeds})"
