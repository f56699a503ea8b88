"""Comparisons against analyses of variance, other tests of scipy, and simulations with known differences."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from pairs import each_pair
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.power import TTestPower

from benchmark.analysis import comparison


def answers(rng, strategies, seeds, examples, *, gain=0.0, spread=0.1, wide=1.0):
    """Right or wrong (strategies, seeds, examples): by the example's difficulty, which all share, the
    strategy's own with it, the run (standard deviation `spread`, for the first strategy `wide` times that)
    and chance. The first strategy has `gain` more."""
    runs = rng.normal(0, spread, (strategies, seeds, 1))
    runs[0] *= wide
    runs[0] += gain
    of_all = rng.normal(1.2, 1.8, examples) + rng.normal(0, spread, (seeds, 1))
    own = rng.normal(0, 0.5, (strategies, 1, examples))
    chance = rng.normal(0, 1, (strategies, seeds, examples))
    return (of_all + own + runs + chance > 0).astype(float)


def as_strategies(scores):
    return {f"s{i}": dict(enumerate(table)) for i, table in enumerate(scores)}


def test_variances_and_degrees_are_those_of_an_analysis_of_variance():
    scores = answers(np.random.default_rng(0), 4, 3, 40, spread=0.5)
    differences = comparison.pairs(as_strategies(scores))
    long = pd.DataFrame(
        [(k, s, value) for (k, s), value in np.ndenumerate(scores.mean(axis=2))],
        columns=["strategy", "seed", "score"],
    )
    squares = anova_lm(ols("score ~ C(strategy) + C(seed)", long).fit())
    shared = 2 * squares.mean_sq["Residual"]
    for (one, other), difference in differences.items():
        table = scores[int(one[1:])] - scores[int(other[1:])]
        cells = pd.DataFrame(
            [(s, e, value) for (s, e), value in np.ndenumerate(table)],
            columns=["seed", "example", "difference"],
        )
        mean_sq = anova_lm(ols("difference ~ C(seed) + C(example)", cells).fit()).mean_sq
        noise, of_example = mean_sq["Residual"], mean_sq["C(example)"]
        of_seeds = max(mean_sq["C(seed)"] / 40, shared, noise / 40)
        of_examples = max(of_example - noise, 0) / (3 * 40)
        assert difference.of_seeds == pytest.approx(of_seeds)
        assert difference.of_examples == pytest.approx(of_examples, abs=1e-12)
        assert difference.degrees == squares.df["Residual"] == 6
        variance = of_seeds / 3 + of_examples
        degrees = variance**2 / ((of_seeds / 3) ** 2 / 6 + of_examples**2 / 39)
        p = 2 * scipy.stats.t.sf(abs(table.mean()) / math.sqrt(variance), degrees)
        low, high = scipy.stats.t.interval(0.95, degrees, table.mean(), math.sqrt(variance))
        assert (difference.p, difference.low, difference.high) == pytest.approx((p, low, high))


def test_holm_is_the_procedure_written_out():
    scores = answers(np.random.default_rng(1), 5, 5, 300, gain=0.6)
    differences = comparison.pairs(as_strategies(scores)).values()
    ranked = sorted(differences, key=lambda difference: difference.p)
    largest = 0.0
    for rank, difference in enumerate(ranked):
        largest = max(largest, min(1.0, difference.p * (len(ranked) - rank)))
        assert difference.adjusted == pytest.approx(largest)
        assert difference.separable == (largest < 0.05)


def test_the_better_one_stands_first_whichever_way_is_better():
    high, low = {0: np.array([3.0, 4.0]), 1: np.array([3.0, 5.0])}, {0: np.zeros(2), 1: np.zeros(2)}
    ((names, difference),) = comparison.pairs({"low": low, "high": high}).items()
    assert (names, difference.mean) == (("high", "low"), 3.75)
    ((names, difference),) = comparison.pairs(
        {"low": low, "high": high}, higher_is_better=False
    ).items()
    assert (names, difference.mean) == (("low", "high"), -3.75)


def test_one_seed_has_an_interval_of_its_examples_and_no_test():
    one, other = np.random.default_rng(2).random((2, 50))
    (difference,) = comparison.pairs({"a": {7: one}, "b": {7: other}}).values()
    expected = scipy.stats.ttest_rel(one, other).confidence_interval(0.95)
    assert sorted([difference.low, difference.high]) == pytest.approx(
        sorted(map(abs, expected) if difference.mean != (one - other).mean() else expected)
    )
    assert (difference.p, difference.adjusted, difference.separable) == (None, None, False)
    assert math.isnan(difference.seeds_to_separate())


def test_only_seeds_in_common_are_compared_and_only_several_of_them_tested():
    scores = answers(np.random.default_rng(3), 3, 3, 60)
    strategies = as_strategies(scores)
    strategies["s2"] = {0: scores[2][0]}
    differences = comparison.pairs(strategies)
    assert sorted((d.seeds, d.tests, d.p is None) for d in differences.values()) == [
        *((1, 1, True), (1, 1, True), (3, 1, False)),
    ]
    assert comparison.pairs({"a": {0: scores[0][0]}, "b": {1: scores[1][0]}}) == {}
    assert comparison.pairs({}) == {}


def test_equal_predictions_are_equal_and_a_constant_difference_is_certain():
    same = as_strategies(np.repeat(answers(np.random.default_rng(4), 1, 3, 30), 2, axis=0))
    (difference,) = comparison.pairs(same).values()
    assert (difference.mean, difference.low, difference.high, difference.p) == (0, 0, 0, 1)
    (difference,) = comparison.pairs(
        as_strategies(np.array([np.ones((2, 9)), np.zeros((2, 9))]))
    ).values()
    assert (difference.mean, difference.low, difference.high, difference.p) == (1, 1, 1, 0)


def test_every_strategy_is_compared_with_a_constant():
    scores = answers(np.random.default_rng(5), 3, 4, 80, gain=1.5)
    majority = (np.arange(80) % 3 > 0).astype(float)
    differences = comparison.against(as_strategies(scores), majority)
    own = [(table.mean(axis=1)).var(ddof=1) for table in scores]
    assert differences["s0"].mean == pytest.approx(scores[0].mean() - majority.mean())
    assert differences["s0"].degrees == 3 * 3 and differences["s0"].tests == 3
    assert differences["s0"].of_seeds == pytest.approx(np.mean(own)), "its own is smaller"


def test_a_seeds_two_models_are_tested_as_mcnemar_did():
    one, other = answers(np.random.default_rng(6), 2, 3, 200, gain=0.4)
    ps = comparison.by_seed(dict(enumerate(one)), dict(enumerate(other)))
    for p, first, second in zip(ps, one, other, strict=True):
        wins, losses = ((first > second).sum(), (first < second).sum())
        assert p == pytest.approx(scipy.stats.binomtest(wins, wins + losses).pvalue)
    assert comparison.by_seed({0: one[0]}, {0: one[0]}) == [1.0]


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.05, 0.3])
def test_a_seeds_two_models_are_tested_by_a_paired_bootstrap_where_scores_are_no_counts(shift):
    rng = np.random.default_rng(7)
    one = rng.random(300)
    other = one - rng.normal(shift, 0.3, 300)
    (p,) = comparison.by_seed({0: one}, {0: other})
    assert p == pytest.approx(scipy.stats.ttest_rel(one, other).pvalue, abs=0.05)
    assert (p,) == tuple(comparison.by_seed({0: one}, {0: other})), "and equally each time"


def test_all_that_no_test_separates_stand_with_the_best():
    scores = answers(np.random.default_rng(8), 3, 5, 2000, spread=0.03)
    scores[2] = answers(np.random.default_rng(9), 1, 5, 2000, gain=-1.5, spread=0.03)[0]
    differences = comparison.pairs(as_strategies(scores))
    means = {f"s{i}": table.mean() for i, table in enumerate(scores)}
    assert comparison.with_the_best(means, differences) == sorted(
        ("s0", "s1"), key=means.get, reverse=True
    )
    lower = comparison.pairs(as_strategies(scores), higher_is_better=False)
    assert comparison.with_the_best(means, lower, higher_is_better=False) == ["s2"]


def made_difference(**fields):
    usual = {"mean": 0.02, "low": 0.0, "high": 0.04, "seeds": 3, "examples": 1000}
    variances = {"of_seeds": 0.02**2, "degrees": 2, "of_examples": 0.0, "tests": 1}
    return comparison.Difference(**(usual | variances | fields))


@pytest.mark.parametrize(("effect", "tests"), [(1.0, 1), (0.7, 1), (0.5, 6), (2.0, 10)])
def test_the_seeds_that_separate_are_those_of_a_power_calculation(effect, tests):
    needed = made_difference(mean=0.02 * effect, tests=tests).seeds_to_separate()
    expected = TTestPower().solve_power(effect, alpha=0.05 / tests, power=0.8)
    assert needed == math.ceil(float(expected))


def test_so_many_seeds_do_separate_in_four_of_five_cases():
    """Simulates both sources of noise; that of examples is the same for all seeds of a table."""
    difference = made_difference(of_examples=0.004**2)
    seeds = int(difference.seeds_to_separate())
    rng, rejected = np.random.default_rng(10), []
    for _ in range(4000):
        drawn = rng.normal(0.02, 0.02, seeds) + rng.normal(0, 0.004)
        error, degrees = comparison._errors(
            drawn.var(ddof=1) / seeds, seeds - 1, difference.of_examples, 1000
        )
        rejected.append(2 * scipy.stats.t.sf(abs(drawn.mean()) / error, degrees) < 0.05)
    assert np.mean(rejected) == pytest.approx(0.8, abs=0.06)


def test_more_than_a_hundred_seeds_and_more_seeds_than_help_are_told_apart():
    assert made_difference(mean=0.001).seeds_to_separate() == math.inf
    assert made_difference(mean=0.001).examples_suffice
    few = made_difference(of_examples=0.01**2)
    assert few.seeds_to_separate() == math.inf and not few.examples_suffice


# --- tables of known truth ------------------------------------------------------------------------


def alarms(tables, seed=0, **shape):
    """The share of tables of equal strategies in which at least two are called different, and the share of
    all 95 % intervals that hold 0."""
    rng, false, holding = np.random.default_rng(seed), 0, []
    for _ in range(tables):
        differences = comparison.pairs(as_strategies(answers(rng, **shape))).values()
        false += any(difference.separable for difference in differences)
        holding += [difference.low <= 0 <= difference.high for difference in differences]
    return false / tables, np.mean(holding)


def test_equal_strategies_are_called_different_in_about_one_table_of_twenty():
    share, holding = alarms(300, strategies=4, seeds=3, examples=150, spread=0.3)
    assert share <= scipy.stats.binom.ppf(0.999, 300, 0.05) / 300
    assert 0.93 < holding < 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "spread", "wide"),
    each_pair([(2, 3), (2, 5), (5, 2), (5, 3), (5, 5), (10, 5)], [0.0, 0.1, 0.3], [1.0, 5.0]),
)
def test_equal_strategies_of_any_table(size, spread, wide):
    strategies, seeds = size
    shape = {"strategies": strategies, "seeds": seeds, "examples": 400}
    share, holding = alarms(1000, **shape, spread=spread, wide=wide)
    rate = 0.05 if wide == 1 else 0.08 if seeds > 2 else 0.1
    assert share <= scipy.stats.binom.ppf(0.999, 1000, rate) / 1000
    assert holding > (0.93 if wide == 1 else 0.9)


def test_a_difference_of_several_points_is_found():
    rng, separable, points = np.random.default_rng(11), [], []
    for _ in range(40):
        scores = answers(rng, 5, 5, 872, gain=-0.45)
        points.append(scores[1:].mean() - scores[0].mean())
        pairs = comparison.pairs(as_strategies(scores))
        separable += [pairs[better, "s0"].separable for better, worse in pairs if worse == "s0"]
    assert 0.05 < np.mean(points) < 0.08
    assert np.mean(separable) > 0.9
    assert len(separable) == pytest.approx(160, abs=3)


def test_pairs_are_all_there():
    differences = comparison.pairs(as_strategies(answers(np.random.default_rng(13), 4, 2, 20)))
    assert {frozenset(pair) for pair in differences} == {
        frozenset(pair) for pair in itertools.combinations(("s0", "s1", "s2", "s3"), 2)
    }


def test_the_interval_of_a_mean_score_is_students_for_one_seed_and_wider_with_seeds_that_differ():
    scores = np.random.default_rng(0).integers(0, 2, 200).astype(float)
    one = comparison.against({"full": {0: scores}})["full"]
    interval = scipy.stats.t.interval(0.95, 199, scores.mean(), scores.std(ddof=1) / 200**0.5)
    assert (one.mean, one.low, one.high) == pytest.approx((scores.mean(), *interval))
    apart = comparison.against({"full": {0: scores, 1: 1 - scores * 0.1}})["full"]
    assert apart.high - apart.low > one.high - one.low
