"""Tests whether strategies differ in score. Reads no files and imports no torch.

Scores of two strategies are paired: by seed (order of data, new weights), and for each seed by evaluation
example. So their difference is a table D (seeds, examples), and its mean has two sources of noise. The tests
generalise to both: to runs with other seeds, scored on other examples of the same kind.

D is analysed as a variance components model with crossed random effects of seeds and examples, as in
multi-reader multi-case studies (Obuchowski and Rockette 1995, Hillis 2007). The variance of its mean is

    max(own, pooled, least) / seeds + of_examples

- `own`: the variance of the means of the seeds. With 3 to 5 seeds it has only 2 to 4 degrees of freedom, so
  it is used only where it is larger than `pooled`.
- `pooled`: the mean of `own` over all pairs of the same task and model, which estimates the interaction of
  strategy and seed.
- `least`: the variance of the means of the seeds that the noise of examples alone explains.
- `of_examples`: the variance that all seeds share, because some examples are easier for one strategy.

The test is Student's t with Satterthwaite's degrees of freedom.

Limits, measured on simulated scores (tests/analysis/test_comparison.py). Where all strategies have the same
variance over seeds, at most 6 % of tasks with equal strategies show a difference, and 94 to 99 % of the
intervals contain 0. Where the standard deviation over seeds is five times as large for one strategy, at most
8 % do with 3 or 5 seeds, and 10 % with 2. Examples are taken as independent, although several examples of
SQuAD or MultiRC share a text. A single seed gives an interval over examples only, and no test.
"""

import gc
import itertools
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

LEVEL = 0.05
POWER = 0.8
MOST_SEEDS = 100
_RESAMPLES = 2000

Key = TypeVar("Key", bound=Hashable)
BySeed = Mapping[int, np.ndarray]
"""seed -> the score of each example, of shape (examples,), in the same order for all seeds and strategies."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean difference in the unit of the score, and its 95 % confidence interval (`low`, `high`).

    `p` is two-sided. `adjusted` is p after Holm's correction for the number of `tests` made together. Both
    are None for a single seed. `of_seeds` is the variance of one seed's mean, with `degrees` of freedom.
    `of_examples` is the part of the variance of the mean that more seeds do not reduce.
    """

    mean: float
    low: float
    high: float
    seeds: int
    examples: int
    of_seeds: float
    degrees: float
    of_examples: float
    p: float | None = None
    adjusted: float | None = None
    tests: int = 0

    @property
    def separable(self) -> bool:
        """Whether the difference is significant: `adjusted` is below LEVEL."""
        return self.adjusted is not None and self.adjusted < LEVEL

    def seeds_to_separate(self) -> float:
        """Number of seeds with which a true difference of this size would be found with a power of 0.8.

        Uses the level of Holm's first step, LEVEL / tests. math.inf where more than MOST_SEEDS are needed;
        NaN for a single seed, whose variance is not known.
        """
        from statsmodels.stats.power import ttest_power

        if self.seeds < 2:
            return math.nan
        seeds = np.arange(2, MOST_SEEDS + 1)
        degrees = self.degrees * (seeds - 1) / (self.seeds - 1)
        errors, degrees = _errors(self.of_seeds / seeds, degrees, self.of_examples, self.examples)
        with np.errstate(invalid="ignore"):  # 0 / 0 where nothing varies
            effects = abs(self.mean) / (errors * np.sqrt(seeds))
        power = ttest_power(effects, seeds, LEVEL / self.tests, df=degrees)
        enough = seeds[power >= POWER]
        return float(enough[0]) if len(enough) else math.inf

    @property
    def examples_suffice(self) -> bool:
        """Whether enough seeds would show the difference on these examples; False if even infinitely many
        would not."""
        from scipy import stats

        needed = stats.norm.isf(LEVEL / max(self.tests, 1) / 2) + stats.norm.isf(1 - POWER)
        return bool(abs(self.mean) > needed * math.sqrt(self.of_examples))


def pairs(
    strategies: Mapping[str, BySeed], higher_is_better: bool = True
) -> dict[tuple[str, str], Difference]:
    """The difference of every two strategies with common seeds, over these seeds.

    Keys are (better, other), by the mean over common seeds. A value is the better strategy's score minus the
    other's, so it is negative where lower is better.
    """
    tables = {}
    for one, other in itertools.combinations(strategies, 2):
        common = sorted(set(strategies[one]) & set(strategies[other]))
        if common:
            table = np.stack([strategies[one][seed] - strategies[other][seed] for seed in common])
            if (table.mean() >= 0) == higher_is_better:
                tables[one, other] = table
            else:
                tables[other, one] = -table
    runs = sum(map(len, strategies.values()))
    seeds = {seed for scores in strategies.values() for seed in scores}
    # degrees of freedom of the interaction: (strategies - 1) (seeds - 1) where all have the same seeds
    return _tested(tables, max(runs - len(strategies) - len(seeds) + 1, 1))


def against(
    strategies: Mapping[str, BySeed], constant: np.ndarray | float = 0.0
) -> dict[str, Difference]:
    """The difference of every strategy and a constant predictor, such as the majority class.

    `constant` has the constant predictor's score of each example (examples,), equal for all seeds. Against
    0, `mean`, `low` and `high` are the mean score and its interval, over other seeds and other examples.
    """
    tables = {
        name: np.stack([scores[seed] - constant for seed in sorted(scores)])
        for name, scores in strategies.items()
    }
    return _tested(tables, max(sum(len(table) - 1 for table in tables.values()), 1))


def between(
    strategies: Mapping[str, BySeed], others: Mapping[str, BySeed]
) -> dict[str, Difference]:
    """The difference of the two versions of every strategy, `others` minus `strategies`, on common seeds."""
    tables = {}
    for name, scores in strategies.items():
        common = sorted(set(scores) & set(others.get(name, ())))
        if common:
            tables[name] = np.stack([others[name][seed] - scores[seed] for seed in common])
    return _tested(tables, max(sum(len(table) - 1 for table in tables.values()), 1))


def with_the_best(
    means: Mapping[str, float],
    differences: Mapping[tuple[str, str], Difference],
    higher_is_better: bool = True,
) -> list[str]:
    """The strategy with the best mean, then, best first, those that do not differ significantly from it.

    `means` is by name of the strategy; `differences` are those of `pairs`.
    """
    ranked = sorted(means, key=lambda name: means[name], reverse=higher_is_better)
    worse = {other for (one, other), d in differences.items() if one == ranked[0] and d.separable}
    return [name for name in ranked if name not in worse]


def by_seed(one: BySeed, other: BySeed) -> list[float]:
    """For each common seed, the two-sided p that its two models are equally good on other examples.

    These tests say nothing about other seeds. McNemar's exact test is used where all differences are -1, 0 or
    1, else a paired bootstrap over examples (for a corpus score, over its jackknife values). Seeds are not
    pooled: all have the same examples, so a pooled test would count each example several times.
    """
    return [_models(one[seed] - other[seed]) for seed in sorted(set(one) & set(other))]


def right_or_wrong(strategies: Mapping[str, BySeed]) -> bool:
    """Whether every score is 0 or 1."""
    return all(
        ((scores == 0) | (scores == 1)).all()
        for seeds in strategies.values()
        for scores in seeds.values()
    )


def _tested(tables: Mapping[Key, np.ndarray], degrees: int) -> dict[Key, Difference]:
    """The test of each table (seeds, examples). `degrees` are those of freedom of the pooled variance."""
    from scipy import stats
    from statsmodels.stats.multitest import multipletests

    if not tables:
        return {}
    seeds, examples = np.array([table.shape for table in tables.values()]).T
    own, least, of_examples = np.array([_variances(table) for table in tables.values()]).T
    means = np.array([table.mean() for table in tables.values()])
    several = seeds > 1
    pooled = own[several].mean() if several.any() else 0.0
    of_seeds = np.where(several, np.maximum(np.maximum(own, pooled), least), 0.0)
    errors, freedom = _errors(of_seeds / seeds, degrees, of_examples, examples)
    half = stats.t.isf(LEVEL / 2, freedom) * errors
    with np.errstate(divide="ignore", invalid="ignore"):
        ps = 2 * stats.t.sf(np.abs(means) / errors, freedom)
    ps = np.where(errors > 0, ps, np.where(means == 0, 1.0, 0.0))  # where nothing varies
    adjusted = np.full(len(ps), np.nan)
    if several.any():
        # It collects garbage, and would go through all records and modules each time. Nothing is unfrozen:
        # that would undo a caller's freeze, and to ask whether there was one takes up to 0.1 s.
        gc.freeze()
        adjusted[several] = multipletests(ps[several], method="holm")[1]
    return {
        key: Difference(
            mean=float(means[at]),
            low=float(means[at] - half[at]),
            high=float(means[at] + half[at]),
            seeds=int(seeds[at]),
            examples=int(examples[at]),
            of_seeds=float(of_seeds[at]),
            degrees=degrees,
            of_examples=float(of_examples[at]),
            p=float(ps[at]) if several[at] else None,
            adjusted=float(adjusted[at]) if several[at] else None,
            tests=int(several.sum()),
        )
        for at, key in enumerate(tables)
    }


def _variances(table: np.ndarray) -> tuple[float, float, float]:
    """`own`, `least` and `of_examples` (see the module's docstring) of a table (seeds, examples)."""
    seeds, examples = table.shape
    if examples < 2:
        raise ValueError("at least two examples are needed")
    if seeds == 1:
        return 0.0, 0.0, float(table.var(ddof=1)) / examples
    of_seed, of_example = table.mean(axis=1), table.mean(axis=0)
    rest = table - of_seed[:, None] - of_example + table.mean()
    noise = float((rest**2).sum()) / ((seeds - 1) * (examples - 1))
    shared = max(seeds * float(of_example.var(ddof=1)) - noise, 0.0)
    return float(of_seed.var(ddof=1)), noise / examples, shared / (seeds * examples)


def _errors(
    of_seeds: np.ndarray, degrees: np.ndarray | int, of_examples: np.ndarray | float, examples: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors of means from the variances due to seeds and examples, and degrees of freedom
    (Satterthwaite)."""
    total = of_seeds + of_examples
    spread = of_examples**2 / (examples - 1) + of_seeds**2 / degrees
    freedom = np.divide(total**2, spread, out=np.ones_like(total), where=spread > 0)
    return np.sqrt(total), freedom


def _models(difference: np.ndarray) -> float:
    """Two-sided p that the mean of `difference` (examples,) is zero."""
    from scipy import stats
    from statsmodels.stats.contingency_tables import mcnemar

    wins, losses = int((difference == 1).sum()), int((difference == -1).sum())
    if wins + losses == np.count_nonzero(difference):
        return float(mcnemar([[0, wins], [losses, 0]], exact=True).pvalue)
    means = stats.bootstrap(
        (difference,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=max(1, 2_000_000 // len(difference)),
        method="percentile",
        rng=0,
    ).bootstrap_distribution
    below, above = (means <= 0).sum(), (means >= 0).sum()
    return min(1.0, 2 * (int(min(below, above)) + 1) / (_RESAMPLES + 1))
