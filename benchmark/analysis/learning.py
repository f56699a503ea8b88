"""Learning curves: scores of strategies at equal examples, compute or updates, and how soon they reach one.

The data are the evaluations during training that records hold (`RunRecord.evaluations`). Between two
evaluations a value is interpolated linearly; nothing is extrapolated. An evaluation in the middle of a run
does not show what a shorter run would reach, because the learning rate has not decayed yet. This file reads
no files and imports no torch and no matplotlib.
"""

import math
import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy

from benchmark.analysis.summary import Cell
from benchmark.records.record import Evaluation, RunRecord

Axis = Literal["step", "examples", "updates", "flops", "seconds"]
"""A cost of training: optimizer steps, examples, updates of each parameter, operations, time."""
Measure = Literal["score", "dev_loss"]
UNEVEN = 0.1
"""`unevenness` above which a report lists a run: its groups trained on unequal numbers of tokens."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One seed of a strategy, with its evaluations by ascending step. `groups` is 1 where every step updates
    all trainable parameters."""

    seed: int
    groups: int
    evaluations: tuple[Evaluation, ...]

    def costs(self, axis: Axis) -> list[float]:
        """The cost up to each evaluation. Updates per parameter are steps / groups, because a step updates
        one group."""
        if axis == "updates":
            return [at.step / self.groups for at in self.evaluations]
        return [float(getattr(at, axis)) for at in self.evaluations]

    def values(self, measure: Measure) -> list[float]:
        """The value at each evaluation. Raises TypeError where one is None (see `Comparison.measure`)."""
        return [float(getattr(at, measure)) for at in self.evaluations]


Runs = Mapping[str, Sequence[Run]]
"""Label of a strategy -> its runs, one for each seed."""


@dataclass(frozen=True)
class Mean:
    """A mean over `n` seeds. `std` is the standard deviation with ddof=1, None for one seed."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The strategies of a task and model whose every seed has evaluations.

    `measure` is the score, or the held-out loss where evaluations have no score (tasks that generate text).
    `reference` is the label that the others are compared with: the baseline that the matrix names, or the
    first with strategy `full`; None where there is none.
    `unfinished` maps the label of each strategy left out to (seeds with evaluations, seeds).
    """

    task: str
    model: str
    measure: Measure
    higher_is_better: bool
    runs: Runs
    reference: str | None
    unfinished: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Level:
    """Mean values of strategies, all at the same cost `amount`; None where no cost is common to them.

    `short` has the total cost of each strategy that ends before `amount`, by label.
    """

    amount: float | None
    means: Mapping[str, Mean]
    short: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The cost at which a strategy first reaches a score.

    `reached` of its `seeds` reach it. `steps` and `flops` are means over seeds, None unless every seed
    reaches it. `at_first`: some seed has reached it at its first evaluation, so the means are upper bounds.
    """

    reached: int
    seeds: int
    steps: Mean | None
    flops: Mean | None
    at_first: bool


def comparisons(cells: Iterable[Cell], records: Iterable[RunRecord]) -> list[Comparison]:
    """One for each task and model with a strategy all of whose seeds have at least two evaluations.

    The order is that of `cells`.
    """
    by_id = {record.run_id: record for record in records if record.status == "success"}
    groups: dict[tuple[str, str], list[tuple[Cell, list[RunRecord]]]] = {}
    for cell in cells:
        runs = [by_id[i] for i in cell.run_ids if i in by_id and len(by_id[i].evaluations) > 1]
        if runs:
            groups.setdefault((cell.task, cell.model), []).append((cell, runs))
    optional = (_comparison(task, model, group) for (task, model), group in groups.items())
    return [comparison for comparison in optional if comparison is not None]


def _comparison(
    task: str, model: str, group: Sequence[tuple[Cell, list[RunRecord]]]
) -> Comparison | None:
    """None where no strategy is complete, or evaluations have no value in common."""
    complete = {c.label: runs for c, runs in group if len(runs) == len(c.run_ids)}
    records = [record for runs in complete.values() for record in runs]
    evaluations = [at for record in records for at in record.evaluations]
    measures: tuple[Measure, ...] = ("score", "dev_loss")
    measure = next(
        (m for m in measures if all(getattr(at, m) is not None for at in evaluations)), None
    )
    if not evaluations or measure is None:
        return None
    higher = all(r.scores.higher_is_better for r in records if r.scores)
    said = [cell.label for cell, _ in group if cell.is_baseline]
    full = [cell.label for cell, _ in group if cell.strategy == "full"]
    return Comparison(
        task=task,
        model=model,
        measure=measure,
        higher_is_better=measure == "score" and higher,
        runs={label: tuple(map(_run, runs)) for label, runs in complete.items()},
        reference=next((label for label in said or full if label in complete), None),
        unfinished={
            c.label: (len(runs), len(c.run_ids)) for c, runs in group if c.label not in complete
        },
    )


def _run(record: RunRecord) -> Run:
    return Run(
        seed=record.spec["seed"],
        groups=record.params.groups if record.params else 1,
        evaluations=tuple(record.evaluations),
    )


def level(runs: Runs, axis: Axis, measure: Measure) -> Level:
    """The values of strategies at the largest cost within the evaluated range of as many of them as possible.

    That cost is the smallest total cost of a strategy, among those that end no earlier than the last first
    evaluation of any run. Strategies that end earlier are `short`.
    """
    everyone = [run for mine in runs.values() for run in mine]
    first = max(run.costs(axis)[0] for run in everyone)
    totals = {label: min(run.costs(axis)[-1] for run in mine) for label, mine in runs.items()}
    amount = min((total for total in totals.values() if total >= first), default=None)
    means = {}
    if amount is not None:
        for label, mine in runs.items():
            if totals[label] >= amount:
                means[label] = over_seeds([_at(run, axis, measure, amount) for run in mine])
    short = {label: total for label, total in totals.items() if label not in means}
    return Level(amount=amount, means=means, short=short)


def against_reference(of: Comparison, label: str, axis: Axis) -> tuple[float, Mean] | None:
    """The cost at which a strategy and the reference are compared, and the mean difference of their values.

    The difference is that of equal seeds, strategy minus reference. The cost is the smaller total of the two.
    None where they have no seed in common, or where one ends before the other's first evaluation.
    """
    mine, theirs = _paired(of, label)
    if not mine:
        return None
    amount = level({"mine": mine, "theirs": theirs}, axis, of.measure).amount
    both = [*mine, *theirs]
    if amount is None or min(run.costs(axis)[-1] for run in both) < amount:
        return None
    differences = [
        _at(one, axis, of.measure, amount) - _at(other, axis, of.measure, amount)
        for one, other in zip(mine, theirs, strict=True)
    ]
    return amount, over_seeds(differences)


def reach(of: Comparison, label: str, less: float) -> Reach | None:
    """When the strategy first reaches the reference's final score of the same seed, less a margin.

    The margin `less` makes the goal easier: it is subtracted where higher is better, else added. None where
    the two have no seed in common.
    """
    mine, theirs = _paired(of, label)
    if not mine:
        return None
    sign = 1 if of.higher_is_better else -1
    places = []
    for run, reference in zip(mine, theirs, strict=True):
        goal = sign * reference.values(of.measure)[-1] - less
        places.append(_crossing([sign * value for value in run.values(of.measure)], goal))
    reached = [place for place in places if place is not None]

    def cost(axis: Axis) -> Mean | None:
        if len(reached) < len(mine):
            return None
        pairs = zip(mine, reached, strict=True)
        return over_seeds([_between(run.costs(axis), place) for run, place in pairs])

    return Reach(
        reached=len(reached),
        seeds=len(mine),
        steps=cost("step"),
        flops=cost("flops"),
        at_first=0.0 in reached,
    )


def mean_curve(runs: Sequence[Run], axis: Axis, measure: Measure) -> list[tuple[float, Mean]]:
    """(mean cost, mean value) over seeds, at each step at which every seed was evaluated.

    Empty where an evaluation does not have the value.
    """
    if any(getattr(at, measure) is None for run in runs for at in run.evaluations):
        return []
    seeds = []
    for run in runs:
        steps = (at.step for at in run.evaluations)
        points = zip(run.costs(axis), run.values(measure), strict=True)
        seeds.append(dict(zip(steps, points, strict=True)))
    common = [step for step in seeds[0] if all(step in points for points in seeds)]
    curve = []
    for step in common:
        costs, values = zip(*(points[step] for points in seeds), strict=True)
        curve.append((statistics.fmean(costs), over_seeds(values)))
    return curve


def over_seeds(values: Sequence[float]) -> Mean:
    """The mean and standard deviation of one value a seed."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return Mean(statistics.fmean(values), std, len(values))


def unevenness(record: RunRecord) -> float | None:
    """(max - min) / mean over groups of the mean tokens in a step of the group.

    None for a run with one group, and for a record without token counts.
    """
    means = record.train.group_tokens if record.train else []
    if len(means) < 2 or not any(means):
        return None
    return (max(means) - min(means)) / statistics.fmean(means)


def by_chance(tokens: Sequence[float], groups: Sequence[float]) -> float | None:
    """p of a one-way analysis of variance: how likely the groups' tokens differ this much by chance.

    `tokens` and `groups` have one value a step. None where a group has too few steps for the test.
    """
    from scipy.stats import f_oneway

    by_group: dict[float, list[float]] = {}
    for group, count in zip(groups, tokens, strict=True):
        by_group.setdefault(group, []).append(count)
    if len(by_group) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # scipy warns of groups with equal values; p is right for them
        p = float(f_oneway(*by_group.values()).pvalue)
    return None if math.isnan(p) else p


def _paired(of: Comparison, label: str) -> tuple[list[Run], list[Run]]:
    """The runs of a strategy and those of the reference with the same seeds, in the same order."""
    theirs = {run.seed: run for run in of.runs.get(of.reference or "", ())}
    mine = [run for run in of.runs[label] if run.seed in theirs]
    return mine, [theirs[run.seed] for run in mine]


def _at(run: Run, axis: Axis, measure: Measure, amount: float) -> float:
    """The value at the cost `amount`, interpolated."""
    return float(numpy.interp(amount, run.costs(axis), run.values(measure)))


def _between(values: Sequence[float], place: float) -> float:
    """The value at a fractional index, interpolated."""
    return float(numpy.interp(place, range(len(values)), values))


def _crossing(values: Sequence[float], goal: float) -> float | None:
    """The fractional index at which `values` first reaches `goal`; None where it never does."""
    for index, value in enumerate(values):
        if value >= goal:
            if index == 0:
                return 0.0
            before = values[index - 1]
            return index - 1 + (goal - before) / (value - before)
    return None
