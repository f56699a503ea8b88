"""Which strategies of a matrix differ, tested by the scores of examples in the predictions files.

Reads each predictions file once, and keeps those of one task and model in memory at a time. Imports no torch
and no mlflow.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmark.analysis import comparison
from benchmark.analysis.comparison import BySeed, Difference
from benchmark.analysis.summary import Cell, Row
from benchmark.errors import UserError
from benchmark.records import predictions
from benchmark.records.record import RunRecord

MOST_PAIRS = 66
"""Up to this number, a report shows all pairs of a task and model (66 are the pairs of twelve strategies). Of
more it shows only those with the leader."""


@dataclass(frozen=True, kw_only=True)
class Majority:
    """The baseline that always predicts the most frequent class of the evaluation examples.

    `accuracy`: its accuracy (0 to 1). `chance`: that of guessing all classes equally often. `more`: the
    difference of each strategy's accuracy and the baseline's.
    `models`: for each strategy, the p of McNemar's test of each seed's model against the baseline.
    """

    accuracy: float
    chance: float
    more: Mapping[str, Difference]
    models: Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The results of the tests of one task and model. Strategies are named by their labels.

    `scores`: the mean score of each strategy with its interval, as the difference from 0.
    `pairs`: the difference of every two strategies, the better one first. `models`: for each pair that a
    report shows, the p of each seed's two models. `right_or_wrong`: whether all scores are 0 or 1, so that
    this p is McNemar's. `best`: the strategy with the best mean and those not significantly different from
    it, among strategies with several seeds; `worse`: the others among them. `untested`: for each strategy in
    neither, the reason. `leader`: the strategy with the best mean, among those with several seeds if there
    are any; "" if no strategy has example scores.
    """

    task: str
    model: str
    metric: str
    scores: Mapping[str, Difference]
    pairs: Mapping[tuple[str, str], Difference]
    models: Mapping[tuple[str, str], Sequence[float]]
    right_or_wrong: bool
    best: Sequence[str]
    worse: Sequence[str]
    untested: Mapping[str, str]
    leader: str
    majority: Majority | None

    @property
    def strong(self) -> set[str]:
        """The labels that a table shows in bold: `best`, but none where no strategy is worse."""
        return set(self.best) if self.worse else set()

    def minus(self, label: str, baseline: str) -> Difference | None:
        """The difference of a strategy and another one; None where they are not compared."""
        if (label, baseline) in self.pairs:
            return self.pairs[label, baseline]
        turned = self.pairs.get((baseline, label))
        if turned is None:
            return None
        return replace(turned, mean=-turned.mean, low=-turned.high, high=-turned.low)

    def is_better(self, label: str, baseline: str) -> bool:
        """Whether the mean of a strategy is the better one of the two."""
        return (label, baseline) in self.pairs


def judge(
    cells: Iterable[Cell], rows: Iterable[Row], records: Iterable[RunRecord], folder: Path
) -> list[Verdict]:
    """One verdict for each task and model, in the order of `rows`.

    `rows` has one row for each of `cells`. `folder` holds the predictions that `records` name. A strategy is
    compared only if every seed has a score.
    """
    by_id = {record.run_id: record for record in records}
    groups: dict[tuple[str, str], list[tuple[Row, list[RunRecord]]]] = {}
    for cell, row in zip(cells, rows, strict=True):
        if row.mean is not None:
            runs = [by_id[run_id] for run_id in cell.run_ids]
            groups.setdefault((row.task, row.model), []).append((row, runs))
    return [_verdict(group, folder) for group in groups.values()]


def words(verdicts: Iterable[Verdict]) -> dict[tuple[str, str, str], str]:
    """The verdict on each strategy in words, by task, model and label.

    Strategies of a task and model of which none is worse than the best are left out.
    """
    texts = {}
    for of in verdicts:
        for label in of.strong:
            alone = len(of.strong) == 1
            texts[of.task, of.model, label] = "best" if alone else "not separable from the best"
        texts |= {(of.task, of.model, label): "worse than the best" for label in of.worse}
    return texts


def majorities(verdicts: Iterable[Verdict]) -> dict[tuple[str, str, str], float]:
    """The accuracy of always predicting the most frequent class, by task, model and label."""
    return {
        (of.task, of.model, label): of.majority.accuracy
        for of in verdicts
        if of.majority is not None
        for label in of.majority.models
    }


def _verdict(group: Sequence[tuple[Row, list[RunRecord]]], folder: Path) -> Verdict:
    row, _ = group[0]
    higher = row.higher_is_better
    examples = Examples(folder)
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
            untested[label] = "it has only one seed, so the spread over seeds is unknown"
    scored = {r.label: r.mean for r, _ in group if r.mean is not None and r.label in strategies}
    means = {label: mean for label, mean in scored.items() if label not in untested}
    best = comparison.with_the_best(means, pairs, higher) if means else []
    among = means or scored
    leader = max(among, key=lambda label: among[label] * (1 if higher else -1), default="")
    shown = [pair for pair in pairs if len(pairs) <= MOST_PAIRS or leader in pair]
    return Verdict(
        task=row.task,
        model=row.model,
        metric=row.metric or "score",
        scores=comparison.against(strategies),
        pairs=pairs,
        models={(a, b): comparison.by_seed(strategies[a], strategies[b]) for a, b in shown},
        right_or_wrong=comparison.right_or_wrong(strategies),
        best=best,
        worse=[label for label in means if label not in best],
        untested=untested,
        leader=leader,
        majority=_majority(strategies, examples.classes()),
    )


class Examples:
    """Reads the example scores of the runs of one task. All runs must have the same examples and metric."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._first: predictions.Predictions | None = None
        self._metric: tuple[str, str] | None = None

    def of(self, folder: Path) -> "Examples":
        """A reader of another folder, whose runs must have the same examples and metric as this one's."""
        other = Examples(folder)
        other._first, other._metric = self._first, self._metric
        return other

    def scores(self, run: RunRecord) -> np.ndarray:
        """The scores of a run (examples,). Raises UserError where they do not compare with earlier runs'."""
        assert run.scores is not None
        if run.predictions is None:
            raise UserError(f"{run.run_id}: the record names no predictions")
        table = predictions.read(self._folder / run.predictions)
        metric = (run.scores.metric, run.scores.metric_version)
        if table.scores is None:
            hint = "hift-bench rescore --write adds them"
            raise UserError(f"{run.predictions}: no scores of single examples ({hint})")
        if len(table.scores) < 2:
            raise UserError(f"{run.predictions}: fewer than two examples")
        if self._first is None:
            self._first, self._metric = table, metric
        if metric != self._metric:
            raise UserError(f"{run.run_id}: scored by another version of the metric")
        if table.ids != self._first.ids:
            raise UserError(f"{run.predictions}: scored on other examples than the first run")
        return np.array(table.scores)

    def classes(self) -> np.ndarray | None:
        """The true class of each example; None where the metric is not accuracy over classes."""
        if self._first is None or self._metric is None:
            return None
        of_classes = self._metric[1].startswith("accuracy@")
        return np.array(self._first.references) if of_classes else None


def _majority(strategies: Mapping[str, BySeed], classes: np.ndarray | None) -> Majority | None:
    if classes is None:
        return None
    names, counts = np.unique(classes, return_counts=True)
    correct = (classes == names[counts.argmax()]).astype(float)
    return Majority(
        accuracy=float(correct.mean()),
        chance=1 / len(names),
        more=comparison.against(strategies, correct),
        models={
            label: comparison.by_seed(scores, dict.fromkeys(scores, correct))
            for label, scores in strategies.items()
        },
    )
