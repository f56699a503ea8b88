"""The report's section on differences between strategies: its tables and sentences, and differences.csv."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.analysis.comparison import MOST_SEEDS, Difference
from benchmark.analysis.summary import Row
from benchmark.analysis.verdicts import Majority, Verdict
from benchmark.report.tables import Table, listed, model_name, task_name

CSV = "differences.csv"
_NUMBERS = ("mean", "low", "high", "seeds", "examples", "p", "adjusted", "separable")


@dataclass(frozen=True, kw_only=True)
class Section:
    """The section of a task and model. `left_out` has sentences on strategies and pairs not shown."""

    title: str
    sentence: str
    pairs: Table
    left_out: tuple[str, ...]
    majority: Table | None
    majority_accuracy: str


def sections(verdicts: Iterable[Verdict], rows: Sequence[Row]) -> list[Section]:
    """One section for each task and model with strategies that are compared, or not compared for a reason."""
    return [_section(of, rows) for of in verdicts if of.pairs or of.untested or of.majority]


def write_csv(path: Path, verdicts: Iterable[Verdict]) -> None:
    """Write every difference, not rounded, in the unit of the metric; `adjusted` is p after Holm."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["task", "model", "metric", "better", "other", *_NUMBERS])
        for of in verdicts:
            for pair, difference in of.pairs.items():
                numbers = (getattr(difference, name) for name in _NUMBERS)
                writer.writerow([of.task, of.model, of.metric, *pair, *numbers])


def _section(of: Verdict, rows: Sequence[Row]) -> Section:
    left_out = [f"{label} is not ranked: {why}." for label, why in of.untested.items()]
    if len(of.models) < len(of.pairs):
        left_out.append(f"Of {len(of.pairs)} pairs, only those with {of.leader} are shown.")
    majority = of.majority
    return Section(
        title=f"{task_name(rows, of.task)}, {model_name(rows, of.model)}",
        sentence=sentence(of),
        pairs=_pair_table(of),
        left_out=tuple(left_out),
        majority=None if majority is None else _majority_table(majority),
        majority_accuracy="" if majority is None else f"{majority.accuracy:.4f}",
    )


def sentence(of: Verdict) -> str:
    """Which strategies are best, not separable from the best, and worse."""
    if len(of.best) + len(of.worse) < 2:
        return "Fewer than two strategies can be ranked."
    best, *others = of.best
    if not of.worse:
        return f"Not separable: no strategy differs significantly from {best}, which has the best mean."
    if not others:
        return f"{best} is better than {listed(of.worse)}."
    ties = f"not separable from it: {listed(others)}"
    return f"{best} has the best mean; {ties}. Worse: {listed(of.worse)}."


def word(of: Verdict | None, row: Row, first: Row) -> str:
    """The verdict on a row against the baseline `first` in a word or two; "–" where there is none."""
    pair = of.minus(row.label, first.label) if of else None
    if of is None or pair is None:
        return "–"
    if pair.p is None:
        return "not tested"
    if not pair.separable:
        return "not separable"
    return "better" if of.is_better(row.label, first.label) else "worse"


def _pair_table(of: Verdict) -> Table:
    test = "McNemar" if of.right_or_wrong else "paired bootstrap"
    body = []
    for pair, models in of.models.items():
        difference = of.pairs[pair]
        verdict = f"{pair[0]} is better" if difference.separable else _inseparable(difference)
        body.append((*pair, verdict, *_numbers(difference, models)))
    columns = ("better mean", "other", "verdict", "difference", "95 % interval")
    return Table(
        columns=(*columns, "p, Holm", f"p of each seed's models, {test}"),
        rows=tuple(body),
        names=3,
    )


def _majority_table(majority: Majority) -> Table:
    body = []
    for label, difference in majority.more.items():
        direction = "better" if difference.mean > 0 else "worse"
        verdict = direction if difference.separable else _inseparable(difference)
        body.append((label, verdict, *_numbers(difference, majority.models[label])))
    columns = ("strategy", "verdict", "accuracy above it", "95 % interval", "p, Holm")
    return Table(columns=(*columns, "p of each seed's model, McNemar"), rows=tuple(body), names=2)


def _inseparable(difference: Difference) -> str:
    if difference.p is None:
        return "not tested: one seed"
    seeds = difference.seeds_to_separate()
    if seeds <= MOST_SEEDS:
        return f"not separable; about {seeds:.0f} seeds would be needed"
    if difference.examples_suffice:
        return f"not separable; more than {MOST_SEEDS} seeds would be needed"
    return f"not separable; {difference.examples} examples are too few for any number of seeds"


def _numbers(difference: Difference, models: Sequence[float]) -> tuple[str, ...]:
    digits = 4 if max(abs(difference.low), abs(difference.high)) < 2 else 2
    interval = f"{difference.low:+.{digits}f} to {difference.high:+.{digits}f}"
    adjusted = "–" if difference.adjusted is None else _p(difference.adjusted)
    return f"{difference.mean:+.{digits}f}", interval, adjusted, ", ".join(map(_p, models))


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
