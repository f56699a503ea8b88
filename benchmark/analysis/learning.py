"""Learning curves: what strategies reach for the same examples, compute or updates, and how soon.

Owns the arithmetic on the looks that records hold (`RunRecord.evaluations`). Between two looks a value is
interpolated linearly; before the first and after the last there is none: nothing is extrapolated. A look in
the middle of a run is not a shorter run: its learning rate has not come down yet. No files, no torch, no
matplotlib.
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

Axis = Literal["step", "examples", "updates", "flops"]
"""What training spends: optimizer steps, examples, updates of each parameter, counted operations."""
Measure = Literal["score", "dev_loss"]
UNEVEN = 0.1
"""From here on the groups of a run are said to have seen different amounts of tokens."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One seed of a strategy, with its looks by ascending step. `groups` is 1 where all that trains is
    updated at each step."""

    seed: int
    groups: int
    looks: tuple[Evaluation, ...]

    def spent(self, axis: Axis) -> list[float]:
        """By each look. Updates per parameter: steps / groups, since one step of a sweep updates it."""
        if axis == "updates":
            return [look.step / self.groups for look in self.looks]
        return [float(getattr(look, axis)) for look in self.looks]

    def seen(self, measure: Measure) -> list[float]:
        """At each look. Raises TypeError where a look has no such value (see `Comparison.measure`)."""
        return [float(getattr(look, measure)) for look in self.looks]


Runs = Mapping[str, Sequence[Run]]
"""Label of a strategy -> its runs, one for each seed."""


@dataclass(frozen=True)
class Mean:
    """Over `n` seeds; `std` has ddof=1, None for one seed."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The strategies of one task and model of which every seed has its looks.

    `measure`: the score, or the held-out loss where a task generates text, which is not scored along a run.
    `reference`: the label of FPFT, the first whose strategy is `full`; None where no such one is here.
    `unfinished`: label -> (seeds with looks, seeds) of the strategies that are left out.
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
    """What strategies have reached when each has spent `amount` of an axis (None where no amount lies within
    the looks of any). `short`: what a strategy spends in all, where that is less."""

    amount: float | None
    means: Mapping[str, Mean]
    short: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How soon the seeds of a strategy came to a score. `reached` of `seeds` did; the means are of all
    seeds, None unless every one did. `at_first`: one was there at its first look, so the means are upper
    bounds."""

    reached: int
    seeds: int
    steps: Mean | None
    flops: Mean | None
    at_first: bool


def comparisons(cells: Iterable[Cell], records: Iterable[RunRecord]) -> list[Comparison]:
    """One for each task and model that has runs with at least two looks, in the order of `cells`."""
    by_id = {record.run_id: record for record in records if record.status == "success"}
    found: dict[tuple[str, str], list[tuple[Cell, list[RunRecord]]]] = {}
    for cell in cells:
        looked = [by_id[i] for i in cell.run_ids if i in by_id and len(by_id[i].evaluations) > 1]
        if looked:
            found.setdefault((cell.task, cell.model), []).append((cell, looked))
    made = (_comparison(task, model, here) for (task, model), here in found.items())
    return [comparison for comparison in made if comparison is not None]


def _comparison(
    task: str, model: str, here: Sequence[tuple[Cell, list[RunRecord]]]
) -> Comparison | None:
    whole = {c.label: looked for c, looked in here if len(looked) == len(c.run_ids)}
    records = [record for looked in whole.values() for record in looked]
    looks = [look for record in records for look in record.evaluations]
    measures: tuple[Measure, ...] = ("score", "dev_loss")
    measure = next((m for m in measures if all(getattr(k, m) is not None for k in looks)), None)
    if not looks or measure is None:
        return None
    higher = all(r.scores.higher_is_better for r in records if r.scores)
    full = (cell.label for cell, _ in here if cell.strategy == "full" and cell.label in whole)
    return Comparison(
        task=task,
        model=model,
        measure=measure,
        higher_is_better=measure == "score" and higher,
        runs={label: tuple(map(_run, looked)) for label, looked in whole.items()},
        reference=next(full, None),
        unfinished={
            c.label: (len(looked), len(c.run_ids)) for c, looked in here if c.label not in whole
        },
    )


def _run(record: RunRecord) -> Run:
    return Run(
        seed=record.spec["seed"],
        groups=record.params.groups if record.params else 1,
        looks=tuple(record.evaluations),
    )


def level(runs: Runs, axis: Axis, measure: Measure) -> Level:
    """What strategies reach for the same amount: the smallest total of all that spend as much as every
    other had spent by its first look."""
    everyone = [run for mine in runs.values() for run in mine]
    first = max(run.spent(axis)[0] for run in everyone)
    totals = {label: min(run.spent(axis)[-1] for run in mine) for label, mine in runs.items()}
    amount = min((total for total in totals.values() if total >= first), default=None)
    means = {}
    if amount is not None:
        for label, mine in runs.items():
            if totals[label] >= amount:
                means[label] = over_seeds([_at(run, axis, measure, amount) for run in mine])
    short = {label: total for label, total in totals.items() if label not in means}
    return Level(amount=amount, means=means, short=short)


def against_reference(of: Comparison, label: str, axis: Axis) -> tuple[float, Mean] | None:
    """(amount, mean difference): the strategy less the reference of the same seed, when both have spent the
    smaller total of the two. None where they share no seed or one has too little to be compared."""
    mine, theirs = _paired(of, label)
    if not mine:
        return None
    amount = level({"mine": mine, "theirs": theirs}, axis, of.measure).amount
    both = [*mine, *theirs]
    if amount is None or min(run.spent(axis)[-1] for run in both) < amount:
        return None
    differences = [
        _at(one, axis, of.measure, amount) - _at(other, axis, of.measure, amount)
        for one, other in zip(mine, theirs, strict=True)
    ]
    return amount, over_seeds(differences)


def reach(of: Comparison, label: str, less: float) -> Reach | None:
    """Until a seed first comes to the final score of the same seed of the reference, worse by `less`. None
    where they share no seed."""
    mine, theirs = _paired(of, label)
    if not mine:
        return None
    sign = 1 if of.higher_is_better else -1
    places = []
    for run, reference in zip(mine, theirs, strict=True):
        goal = sign * reference.seen(of.measure)[-1] - less
        places.append(_crossing([sign * value for value in run.seen(of.measure)], goal))
    reached = [place for place in places if place is not None]

    def spent(axis: Axis) -> Mean | None:
        if len(reached) < len(mine):
            return None
        there = zip(mine, reached, strict=True)
        return over_seeds([_between(run.spent(axis), place) for run, place in there])

    return Reach(
        reached=len(reached),
        seeds=len(mine),
        steps=spent("step"),
        flops=spent("flops"),
        at_first=0.0 in reached,
    )


def mean_curve(runs: Sequence[Run], axis: Axis, measure: Measure) -> list[tuple[float, Mean]]:
    """(mean spent, mean seen) over seeds at each step that every one was looked at; empty where a look has
    no such value."""
    if any(getattr(look, measure) is None for run in runs for look in run.looks):
        return []
    seeds = []
    for run in runs:
        steps = (look.step for look in run.looks)
        points = zip(run.spent(axis), run.seen(measure), strict=True)
        seeds.append(dict(zip(steps, points, strict=True)))
    together = [step for step in seeds[0] if all(step in points for points in seeds)]
    curve = []
    for step in together:
        spent, seen = zip(*(points[step] for points in seeds), strict=True)
        curve.append((statistics.fmean(spent), over_seeds(seen)))
    return curve


def over_seeds(values: Sequence[float]) -> Mean:
    std = statistics.stdev(values) if len(values) > 1 else None
    return Mean(statistics.fmean(values), std, len(values))


def unevenness(record: RunRecord) -> float | None:
    """(max - min) / mean of the mean tokens that the groups' steps saw; None for one group, or no note of
    it."""
    means = record.train.group_tokens if record.train else []
    if len(means) < 2 or not any(means):
        return None
    return (max(means) - min(means)) / statistics.fmean(means)


def by_chance(tokens: Sequence[float], groups: Sequence[float]) -> float | None:
    """p of a one-way analysis of variance over steps: how often steps dealt to groups at random would differ
    so much. None where there are too few steps of a group to say."""
    from scipy.stats import f_oneway

    seen: dict[float, list[float]] = {}
    for group, count in zip(groups, tokens, strict=True):
        seen.setdefault(group, []).append(count)
    if len(seen) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of groups without any spread, whose p says what there is
        p = float(f_oneway(*seen.values()).pvalue)
    return None if math.isnan(p) else p


def _paired(of: Comparison, label: str) -> tuple[list[Run], list[Run]]:
    """The runs of a strategy and of the reference that have the same seed, in the same order."""
    theirs = {run.seed: run for run in of.runs.get(of.reference or "", ())}
    mine = [run for run in of.runs[label] if run.seed in theirs]
    return mine, [theirs[run.seed] for run in mine]


def _at(run: Run, axis: Axis, measure: Measure, amount: float) -> float:
    return float(numpy.interp(amount, run.spent(axis), run.seen(measure)))


def _between(values: Sequence[float], place: float) -> float:
    """At a place in the list that need be no whole number."""
    return float(numpy.interp(place, range(len(values)), values))


def _crossing(values: Sequence[float], goal: float) -> float | None:
    """The place in the list where it first comes up to `goal`; None where it never does."""
    for index, value in enumerate(values):
        if value >= goal:
            if index == 0:
                return 0.0
            before = values[index - 1]
            return index - 1 + (goal - before) / (value - before)
    return None
