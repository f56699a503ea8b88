"""Learning curves: interpolation, and cases without a common cost, against values computed by hand."""

import dataclasses
import math

import numpy
import pytest
import scipy.stats
from factories import make_cells, make_failure, make_record, make_spec

from benchmark.analysis import learning
from benchmark.analysis.learning import Mean
from benchmark.records.record import Evaluation


def looks(steps, scores, *, flops=10, losses=None):
    """A look at each step; a step is of 16 examples and `flops` operations."""
    losses = losses or [1 - score for score in scores]
    return [
        Evaluation(
            step=step,
            examples=16 * step,
            tokens=300 * step,
            flops=flops * step,
            seconds=float(step),
            score=score,
            dev_loss=loss,
        )
        for step, score, loss in zip(steps, scores, losses, strict=True)
    ]


def looked(label, seed, evaluations, groups=1, **fields):
    strategy = fields.pop("strategy", "hift" if groups > 1 else "full")
    spec = make_spec(strategy=strategy, label=label, seed=seed, **fields)
    record = make_record(spec, evaluations=evaluations)
    return dataclasses.replace(record, params=dataclasses.replace(record.params, groups=groups))


def compared(records):
    specs = [make_spec(**{k: r.spec[k] for k in ("strategy", "label", "seed")}) for r in records]
    return learning.comparisons(make_cells(specs), records)


# Two seeds of FPFT, 40 steps; two of HiFT with 4 groups, 80 steps of 5 operations where FPFT's have 10.
FULL = [
    looked("full", 0, looks((10, 20, 40), (0.5, 0.7, 0.9))),
    looked("full", 1, looks((10, 20, 40), (0.6, 0.8, 0.8))),
]
HIFT = [
    looked("hift", 0, looks((20, 40, 80), (0.4, 0.6, 0.8), flops=5), groups=4),
    looked("hift", 1, looks((20, 40, 80), (0.5, 0.7, 0.9), flops=5), groups=4),
]


def only(records):
    (comparison,) = compared(records)
    return comparison


def level(records, axis):
    comparison = only(records)
    return learning.level(comparison.runs, axis, comparison.measure)


def test_equal_examples_are_the_smallest_total():
    equal = level(FULL + HIFT, "examples")
    assert equal.amount == 640 and not equal.short
    std = math.sqrt(0.005)  # of two values 0.1 apart
    assert {k: (m.mean, m.std) for k, m in equal.means.items()} == {
        "full": pytest.approx((0.85, std)),
        "hift": pytest.approx((0.65, std)),
    }


def test_equal_compute_is_interpolated_between_looks():
    dear = [looked("dear", 0, looks((20, 40), (0.2, 0.8), flops=12), groups=2)]
    equal = level([FULL[0], *dear], "flops")
    assert (
        equal.amount == 400
    )  # all of full; dear is at step 400 / 12 = 33.3, two thirds of the way
    assert equal.means["dear"].mean == pytest.approx(0.2 + 0.6 * (400 - 240) / (480 - 240))
    assert equal.means["full"] == Mean(0.9, None, 1)


def test_equal_updates_are_steps_over_groups():
    equal = level(FULL + HIFT, "updates")
    assert equal.amount == 20  # 80 steps of 4 groups; full is there at its look after step 20
    assert equal.means["full"].mean == pytest.approx(0.75)
    assert equal.means["hift"].mean == pytest.approx(0.85)


def test_a_strategy_with_too_few_updates_is_listed_and_does_not_limit_the_others():
    few = [looked("few", 0, looks((20, 40), (0.4, 0.6)), groups=8)]
    equal = level(FULL + HIFT + few, "updates")
    assert equal.short == {"few": 5.0}, "full is first looked at after 10 updates"
    assert equal.amount == 20 and set(equal.means) == {"full", "hift"}
    assert learning.against_reference(only(FULL + few), "few", "updates") is None


def test_nothing_is_extrapolated_where_seeds_differ():
    """Tokens, and so operations, differ between seeds; the smaller total is common to both."""
    shorter = dataclasses.replace(
        FULL[1], evaluations=looks((10, 20, 40), (0.6, 0.8, 0.8), flops=9)
    )
    equal = level([FULL[0], shorter], "flops")
    assert equal.amount == 360
    at_360 = 0.7 + 0.2 * (360 - 200) / (400 - 200)
    assert equal.means["full"].mean == pytest.approx((at_360 + 0.8) / 2)


def test_differences_are_paired_by_seed_and_as_far_as_both_got():
    comparison = only(FULL + HIFT)
    assert comparison.reference == "full"
    amount, mean = learning.against_reference(comparison, "hift", "examples")
    assert amount == 640
    differences = [0.6 - 0.9, 0.7 - 0.8]
    assert (mean.mean, mean.std) == pytest.approx(
        (numpy.mean(differences), numpy.std(differences, ddof=1))
    )
    amount, mean = learning.against_reference(comparison, "hift", "updates")
    assert (amount, mean.mean, mean.std) == pytest.approx((20, 0.1, 0.0), abs=1e-12)


def test_a_seed_that_the_reference_lacks_is_not_compared_with_another():
    third = looked("hift", 7, looks((20, 40, 80), (0.0, 0.0, 0.0), flops=5), groups=4)
    _, mean = learning.against_reference(only([*FULL, *HIFT, third]), "hift", "examples")
    assert mean.n == 2 and mean.mean == pytest.approx(-0.2)
    assert learning.against_reference(only([*FULL, third]), "hift", "examples") is None
    assert learning.reach(only([*FULL, third]), "hift", 0.01) is None


def test_steps_and_operations_until_the_reference_is_near():
    reached = learning.reach(only(FULL + HIFT), "hift", 0.1)
    # goals 0.8 and 0.7: seed 0 at its last look, seed 1 at its second
    assert (reached.reached, reached.seeds, reached.at_first) == (2, 2, False)
    assert (reached.steps.mean, reached.steps.std) == pytest.approx((60, math.sqrt(800)))
    assert reached.flops.mean == pytest.approx(300)
    # goals 0.85 and 0.75: never, and a quarter of the way from 0.7 at step 40 to 0.9 at step 80
    reached = learning.reach(only(FULL + HIFT), "hift", 0.05)
    assert (reached.reached, reached.steps, reached.flops) == (1, None, None)
    reached = learning.reach(only([FULL[1], HIFT[1]]), "hift", 0.05)
    assert reached.steps == Mean(pytest.approx(50), None, 1) and reached.flops.mean == 250
    assert learning.reach(only(FULL + HIFT), "hift", 0.0).reached == 1
    assert learning.reach(only(FULL + HIFT), "hift", 0.5).at_first


def test_the_first_crossing_counts_though_the_score_falls_again():
    falls = looked("hift", 0, looks((20, 40, 60, 80), (0.4, 0.9, 0.3, 0.9)), groups=4)
    reached = learning.reach(only([FULL[0], falls]), "hift", 0.25)
    assert reached.steps.mean == pytest.approx(20 + 20 * (0.65 - 0.4) / 0.5)


def test_where_lower_is_better_the_goal_lies_above():
    def lower(record):
        scores = dataclasses.replace(record.scores, higher_is_better=False)
        return dataclasses.replace(record, scores=scores)

    full = lower(looked("full", 0, looks((10, 20), (30.0, 20.0))))
    hift = lower(looked("hift", 0, looks((10, 20, 30), (41.0, 31.0, 19.0)), groups=2))
    comparison = only([full, hift])
    assert not comparison.higher_is_better
    assert learning.reach(comparison, "hift", 1.0).steps.mean == pytest.approx(20 + 10 * 10 / 12)


def test_only_strategies_whose_every_seed_is_done_are_compared():
    failed = make_failure(make_spec(strategy="hift", seed=2), "diverged", "the loss became nan")
    comparison = only([*FULL, *HIFT, failed])
    assert set(comparison.runs) == {"full"} and comparison.unfinished == {"hift": (2, 3)}
    assert compared([make_record(make_spec(seed=seed)) for seed in range(2)]) == []
    alone = only(HIFT)
    assert alone.reference is None and learning.reach(alone, "hift", 0.01) is None


def test_text_is_not_scored_along_a_run_so_its_held_out_loss_is_compared():
    def unscored(record):
        bare = [dataclasses.replace(look, score=None) for look in record.evaluations]
        return dataclasses.replace(record, evaluations=bare)

    comparison = only([unscored(record) for record in FULL + HIFT])
    assert (comparison.measure, comparison.higher_is_better) == ("dev_loss", False)
    equal = learning.level(comparison.runs, "examples", comparison.measure)
    assert equal.means["full"].mean == pytest.approx(0.15)
    assert learning.mean_curve(comparison.runs["full"], "step", "score") == []


def test_a_mean_curve_has_the_looks_that_every_seed_has():
    more = looked("full", 2, looks((10, 15, 20, 40), (0.7, 0.1, 0.9, 1.0), flops=16))
    curve = learning.mean_curve(only([*FULL, more]).runs["full"], "flops", "score")
    assert [spent for spent, _ in curve] == pytest.approx([120, 240, 480])
    assert [mean.mean for _, mean in curve] == pytest.approx([0.6, 0.8, 0.9])
    assert curve[0][1].std == pytest.approx(numpy.std([0.5, 0.6, 0.7], ddof=1))


@pytest.mark.parametrize(
    ("means", "expected"),
    [([10.0, 21.0, 14.0], 11 / 15), ([20.0, 20.0], 0.0), ([200.0], None), ([], None)],
)
def test_unevenness_of_the_groups(means, expected):
    record = make_record()
    record = dataclasses.replace(
        record, train=dataclasses.replace(record.train, group_tokens=means)
    )
    uneven = learning.unevenness(record)
    assert uneven == (expected if expected is None else pytest.approx(expected))
    assert learning.unevenness(make_failure(make_spec(), "oom", "no memory")) is None


def test_p_is_that_of_scipy_by_group_and_uniform_where_chance_alone_deals():
    generator = numpy.random.default_rng(0)
    tokens = generator.normal(200, 40, 240)
    groups = numpy.arange(240) % 8
    by_group = [tokens[groups == group] for group in range(8)]
    between = 30 * sum((mine.mean() - tokens.mean()) ** 2 for mine in by_group) / 7
    within = sum(((mine - mine.mean()) ** 2).sum() for mine in by_group) / 232
    expected = scipy.stats.f.sf(between / within, 7, 232)  # the textbook's F
    assert learning.by_chance(list(tokens), list(groups)) == pytest.approx(expected)
    assert learning.by_chance(list(tokens + 10 * groups), list(groups)) < 1e-6
    ps = [learning.by_chance(generator.normal(200, 40, 80), groups[:80]) for _ in range(300)]
    assert scipy.stats.kstest(ps, "uniform").pvalue > 0.01


def test_too_few_steps_have_no_p():
    assert learning.by_chance([5.0, 6.0], [0.0, 1.0]) is None
    assert learning.by_chance([5.0, 6.0], [0.0, 0.0]) is None
