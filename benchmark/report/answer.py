"""The beginning of a report: a paragraph that says what was compared and how it came out, and one table.

Nothing is claimed here that the tests of `analysis.verdicts` do not say.
"""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmark.analysis.comparison import Difference
from benchmark.analysis.summary import Row
from benchmark.analysis.verdicts import Verdict
from benchmark.records.record import RunRecord
from benchmark.report import knobs, paragraph
from benchmark.report.tables import (
    Strong,
    Table,
    baseline_of,
    mebibytes,
    model_name,
    number,
    score_text,
    task_name,
)
from benchmark.report.verdicts import word
from benchmark.timing.speed_record import Timed

Place = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`sentences` are the paragraph. Where several tasks have comparable scores, `table` has means over them
    and `each` the tasks; else `each` is None. `lines` say what needs no training to reach."""

    sentences: tuple[str, ...]
    table: Table
    each: Table | None
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.sentences)


def answer(
    rows: Sequence[Row],
    records: Sequence[RunRecord],
    verdicts: Sequence[Verdict],
    timings: Iterable[Timed] = (),
) -> Answer:
    """The answer of a report on `rows`, whose runs are `records`."""
    by_place: dict[Place, list[Row]] = {}
    for row in rows:
        by_place.setdefault((row.task, row.model), []).append(row)
    of_place = {(of.task, of.model): of for of in verdicts}
    options = knobs.texts(rows, records)
    ratios = knobs.step_ratios(rows, records, timings)
    each = _each(rows, by_place, of_place, options, ratios)
    over = _over_tasks(by_place, of_place, options)
    return Answer(
        sentences=tuple(paragraph.sentences(rows, records, by_place, of_place)),
        table=over or each,
        each=each if over else None,
        lines=tuple(untrained_lines(rows, of_place)),
    )


def _each(
    rows: Sequence[Row],
    by_place: Mapping[Place, Sequence[Row]],
    of_place: Mapping[Place, Verdict],
    options: Mapping[Row, str],
    ratios: Mapping[Row, str],
) -> Table:
    """A row per task, model and strategy; without the columns of task and model where there is one.

    The options come last: they are long, and a phone shows the first columns.
    """
    tasks, models = ({place[at] for place in by_place} for at in (0, 1))
    metrics = {row.metric for row in rows if row.metric}
    baselines = {baseline_of(mine).label for mine in by_place.values()}
    against = baselines.pop() if len(baselines) == 1 else "the baseline"
    body = []
    for place, mine in by_place.items():
        first, of = baseline_of(mine), of_place.get(place)
        for row in mine:
            names = [task_name(rows, row.task)] if len(tasks) > 1 else []
            names += [model_name(rows, row.model)] if len(models) > 1 else []
            names.append(row.label)
            metric = [row.metric or "–"] if len(metrics) > 1 else []
            difference, verdict = _against(of, row, first)
            costs = (
                mebibytes(row.peak_bytes),
                _ratio(row.peak_bytes, first.peak_bytes),
                mebibytes(row.host_state_bytes),
                ratios.get(row, "–"),
            )
            seeds = str(row.n) if row.complete else f"{row.n} of {row.seeds}"
            of_score = (*metric, score_cell(row, of), difference, verdict)
            how = (number(row.lr, "g"), options[row])
            body.append((*names, *of_score, *costs, seeds, *how))
    score = "score" if len(metrics) != 1 else next(iter(metrics))
    columns = [
        *(["task"] if len(tasks) > 1 else []),
        *(["model"] if len(models) > 1 else []),
        "strategy",
        *(["metric"] if len(metrics) > 1 else []),
        *(f"{score}, 95 %", f"minus {against}, 95 %", "verdict"),
        *("device MiB", f"of {against}", "host MiB", "step time", "seeds"),
        *("learning rate", "options"),
    ]
    names_first = 1 + (len(tasks) > 1) + (len(models) > 1)
    return Table(columns=tuple(columns), rows=tuple(body), names=names_first, notes=1)


def _over_tasks(
    by_place: Mapping[Place, Sequence[Row]],
    of_place: Mapping[Place, Verdict],
    options: Mapping[Row, str],
) -> Table | None:
    """A row per strategy with means over all tasks and models.

    None for a single one, and unless every strategy has a score in all of them by the same metric.
    """
    rows = [row for mine in by_place.values() for row in mine]
    by_label: dict[str, list[Row]] = {}
    for row in rows:
        by_label.setdefault(row.label, []).append(row)
    whole = all(len(mine) == len(by_place) for mine in by_label.values())
    scored = all(row.mean is not None for row in rows)
    if len(by_place) < 2 or not whole or not scored or len({row.metric for row in rows}) > 1:
        return None
    firsts = {place: baseline_of(mine) for place, mine in by_place.items()}
    baseline = next(iter(firsts.values())).label
    body = []
    for label, mine in by_label.items():
        won = Counter(
            word(of_place.get((row.task, row.model)), row, firsts[row.task, row.model])
            for row in mine
        )
        ratios = [
            row.peak_bytes / first.peak_bytes
            for row in mine
            if row.peak_bytes and (first := firsts[row.task, row.model]).peak_bytes
        ]
        means = [row.mean or 0.0 for row in mine]
        theirs = [firsts[row.task, row.model].mean or 0.0 for row in mine]
        counts = [str(won[name]) for name in ("better", "not separable", "worse")]
        digits = 4 if abs(statistics.fmean(means)) < 2 else 2
        less = statistics.fmean(means) - statistics.fmean(theirs)
        body.append(
            (
                *(label, f"{statistics.fmean(means):.{digits}f}"),
                *(["", "", "", ""] if label == baseline else [f"{less:+.{digits}f}", *counts]),
                mebibytes(max((row.peak_bytes or 0 for row in mine), default=None)),
                f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "–",
                mebibytes(max((row.host_state_bytes or 0 for row in mine), default=None)),
                options[mine[0]],
            )
        )
    columns = (
        *("strategy", f"mean {rows[0].metric} of {len(by_place)}"),
        *(f"minus {baseline}", "better", "not separable", "worse"),
        *("most device MiB", f"of {baseline}", "most host MiB"),
        "options",
    )
    return Table(columns=columns, rows=tuple(body), notes=1)


def score_cell(row: Row, of: Verdict | None) -> str:
    """The mean with its interval, or with its standard deviation where there is none.

    The interval is a normal approximation. It is cut at the bounds of a score (0 and 1, or 0 alone), and
    where every example has the same score it says nothing.
    """
    if row.mean is None:
        return score_text(row)
    digits = 4 if abs(row.mean) < 2 else 2
    interval = of.scores.get(row.label) if of else None
    text = f"{row.mean:.{digits}f}"
    if interval is not None and interval.low < interval.high:
        low, high = max(0.0, interval.low), interval.high
        high = min(1.0, high) if row.mean <= 1 else high
        text += f" [{low:.{digits}f}, {high:.{digits}f}]"
    elif row.std is not None:
        text += f" ± {row.std:.{digits}f}"
    return Strong(text) if of and row.label in of.strong else text


def _against(of: Verdict | None, row: Row, first: Row) -> tuple[str, str]:
    """The difference of a row and the baseline as text, and the verdict on it."""
    if row is first:
        return "", "baseline"
    pair = of.minus(row.label, first.label) if of else None
    return difference_text(pair), word(of, row, first)


def difference_text(pair: Difference | None) -> str:
    """A difference with its interval, "–" where there is none."""
    if pair is None:
        return "–"
    digits = 4 if max(abs(pair.low), abs(pair.high)) < 2 else 2
    return f"{pair.mean:+.{digits}f} [{pair.low:+.{digits}f}, {pair.high:+.{digits}f}]"


def _ratio(count: int | None, other: int | None) -> str:
    return f"{count / other:.2f}" if count is not None and other else "–"


def untrained_lines(rows: Sequence[Row], of_place: Mapping[Place, Verdict]) -> list[str]:
    """What is reached without training: chance, and always the most frequent class."""
    lines: dict[str, str] = {}
    for (task, _), of in of_place.items():
        if of.majority is not None:
            where = f"{task_name(rows, task)}: " if len(of_place) > 1 else ""
            lines[task] = (
                f"{where}Always answering the most frequent class has an accuracy of "
                f"{of.majority.accuracy:.4f}, and guessing all classes equally often one of "
                f"{of.majority.chance:.4f}."
            )
    return list(lines.values())
