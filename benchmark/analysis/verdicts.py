"""Which strategies of a task and model differ: the scores of examples behind a matrix's rows, compared.

Reads each predictions file once, and holds those of one task and model at a time. No torch, no mlflow.
"""

import gc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.analysis import comparison
from benchmark.analysis.comparison import BySeed, Difference
from benchmark.analysis.summary import Cell, Row
from benchmark.errors import UserError
from benchmark.records import predictions
from benchmark.records.record import RunRecord

MOST_PAIRS = 66
"""Pairs of one task and model that a report shows: of twelve strategies. Of more, those with the best."""


@dataclass(frozen=True, kw_only=True)
class Majority:
    """The most frequent class of the evaluation examples, said of each: its accuracy, how much more each
    strategy has, and for each strategy the p of McNemar's test of every seed's model against it."""

    accuracy: float
    more: Mapping[str, Difference]
    models: Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the tests say of one task and model; strategies go by their labels.

    `pairs`: the difference of every two strategies, the better one first. `models`: of the pairs to show, the
    p of each seed's two models, by McNemar's test where scores are `right_or_wrong`. `best`: of the
    strategies with several seeds that of the best mean, and those that no test separates from it; `worse`:
    the others. `untested`: why a strategy is in neither.
    """

    task: str
    model: str
    metric: str
    pairs: Mapping[tuple[str, str], Difference]
    models: Mapping[tuple[str, str], Sequence[float]]
    right_or_wrong: bool
    best: Sequence[str]
    worse: Sequence[str]
    untested: Mapping[str, str]
    majority: Majority | None

    @property
    def strong(self) -> set[str]:
        """What a table sets in bold: the best and all that are not separable from it, where another is."""
        return set(self.best) if self.worse else set()


def judge(
    cells: Iterable[Cell], rows: Iterable[Row], records: Iterable[RunRecord], folder: Path
) -> list[Verdict]:
    """One verdict per task and model, in the order of `rows`, which are those of `cells`.

    `folder` holds the predictions that `records` name. Strategies count that have a score of every seed.
    """
    by_id = {record.run_id: record for record in records}
    groups: dict[tuple[str, str], list[tuple[Row, list[RunRecord]]]] = {}
    for cell, row in zip(cells, rows, strict=True):
        if row.mean is not None:
            runs = [by_id[run_id] for run_id in cell.run_ids]
            groups.setdefault((row.task, row.model), []).append((row, runs))
    gc.freeze()  # the records: else each reading, and each Holm in statsmodels, looks through all of them
    try:
        return [_verdict(group, folder) for group in groups.values()]
    finally:
        gc.unfreeze()


def words(found: Iterable[Verdict]) -> dict[tuple[str, str, str], str]:
    """What is said of each strategy, by task, model and label; nothing where no other was worse."""
    said = {}
    for of in found:
        for label in of.strong:
            alone = len(of.strong) == 1
            said[of.task, of.model, label] = "best" if alone else "not separable from the best"
        said |= {(of.task, of.model, label): "worse than the best" for label in of.worse}
    return said


def majorities(found: Iterable[Verdict]) -> dict[tuple[str, str, str], float]:
    """The accuracy of the most frequent class, by task, model and label of what is held against it."""
    return {
        (of.task, of.model, label): of.majority.accuracy
        for of in found
        if of.majority is not None
        for label in of.majority.models
    }


def _verdict(group: Sequence[tuple[Row, list[RunRecord]]], folder: Path) -> Verdict:
    row, _ = group[0]
    higher = row.higher_is_better
    examples = _Examples(folder)
    strategies: dict[str, BySeed] = {}
    untested: dict[str, str] = {}
    for one, runs in group:
        try:
            strategies[one.label] = {r.spec["seed"]: examples.scores(r) for r in runs}
        except UserError as error:
            untested[one.label] = str(error).replace(f"{folder}/", "")
    pairs = comparison.pairs(strategies, higher)
    for label, scores in strategies.items():
        if len(scores) < 2:
            untested[label] = "it has one seed, which does not tell how seeds spread"
    means = {r.label: r.mean for r, _ in group if r.mean is not None and r.label not in untested}
    best = comparison.with_the_best(means, pairs, higher) if means else []
    shown = [pair for pair in pairs if len(pairs) <= MOST_PAIRS or set(best[:1]) & set(pair)]
    return Verdict(
        task=row.task,
        model=row.model,
        metric=row.metric or "score",
        pairs=pairs,
        models={(a, b): comparison.by_seed(strategies[a], strategies[b]) for a, b in shown},
        right_or_wrong=comparison.right_or_wrong(strategies),
        best=best,
        worse=[label for label in means if label not in best],
        untested=untested,
        majority=_majority(strategies, examples.classes()),
    )


class _Examples:
    """The scores of one task's examples, run by run, which must all be of the same examples and metric."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._first: predictions.Predictions | None = None
        self._metric: tuple[str, str] | None = None

    def scores(self, run: RunRecord) -> np.ndarray:
        """(examples,). Raises UserError that says why a run's cannot be compared with those before it."""
        assert run.scores is not None
        if run.predictions is None:
            raise UserError(f"{run.run_id}: the record names no predictions")
        found = predictions.read(self._folder / run.predictions)
        metric = (run.scores.metric, run.scores.metric_version)
        if found.scores is None:
            hint = "hift-bench rescore --write adds them"
            raise UserError(f"{run.predictions}: no scores of single examples ({hint})")
        if len(found.scores) < 2:
            raise UserError(f"{run.predictions}: one example has no spread")
        if self._first is None:
            self._first, self._metric = found, metric
        if metric != self._metric:
            raise UserError(f"{run.run_id}: scored by another version of the metric")
        if found.ids != self._first.ids:
            raise UserError(f"{run.predictions}: scored on other examples than the first run")
        return np.array(found.scores)

    def classes(self) -> np.ndarray | None:
        """The class of each example, where the metric is accuracy over classes."""
        if self._first is None or self._metric is None:
            return None
        of_classes = self._metric[1].startswith("accuracy@")
        return np.array(self._first.references) if of_classes else None


def _majority(strategies: Mapping[str, BySeed], classes: np.ndarray | None) -> Majority | None:
    if classes is None:
        return None
    names, counts = np.unique(classes, return_counts=True)
    said = (classes == names[counts.argmax()]).astype(float)
    return Majority(
        accuracy=float(said.mean()),
        more=comparison.against(strategies, said),
        models={
            label: comparison.by_seed(scores, dict.fromkeys(scores, said))
            for label, scores in strategies.items()
        },
    )
