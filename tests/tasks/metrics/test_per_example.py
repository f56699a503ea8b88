"""Scores of single examples: they average to the score, and their spread is that of the score.

The standard errors are held against scipy's bootstrap, which draws the examples anew and scores them.
"""

import numpy as np
import pytest
import scipy.stats

from tasks import base, metrics
from tasks.metrics import e2e
from tasks.metrics._ngrams import bleu, bleu_sums_and_nist


def answers(rng, n, least=1):
    words = ["the", "red", "old", "house", "river", "bank", "7", "12"]
    return [" ".join(rng.choice(words, least + rng.integers(0, 6))) for _ in range(n)]


def labels(classes, right=0.7):
    def make(rng, n):
        references = rng.integers(0, classes, n)
        said = np.where(rng.random(n) < right, references, rng.integers(0, classes, n))
        return said.tolist(), references.tolist()

    return make


def numbers(rng, n):
    x = rng.normal(size=n)
    return (x + rng.normal(size=n)).tolist(), x.tolist()


def likelihoods(rng, n):
    tokens = rng.integers(5, 60, n)
    return (tokens * rng.gamma(20, 0.15, n)).tolist(), tokens.tolist()


def judged(rng, n):
    said, right = labels(2)(rng, n)
    return said, [{"question": str(i // 4), "label": label} for i, label in enumerate(right)]


def sums(rng, n):
    right = rng.integers(0, 50, n)
    said = right + rng.integers(0, 2, n)
    endings = rng.choice(["", " #### "], n)
    return [f"{e}{s}" for s, e in zip(said, endings, strict=True)], [f"#### {r}" for r in right]


def tags(rng, n):
    kinds = ["O", "O", "B-PER", "I-PER", "B-LOC"]
    right = [rng.choice(kinds, rng.integers(1, 12)).tolist() for _ in range(n)]
    return [[t if rng.random() < 0.8 else "O" for t in row] for row in right], right


def descriptions(rng, n):
    right = [[text, text + " by the river"] for text in answers(rng, n, 6)]
    other = answers(rng, n, 6)
    return [r[0] if rng.random() < 0.7 else t for r, t in zip(right, other, strict=True)], right


CASES = {
    ("accuracy", "accuracy"): labels(3),
    ("f1", "f1"): labels(2),
    ("matthews_correlation", "matthews_correlation"): labels(3),
    ("multirc", "f1_a"): judged,
    ("pearson", "pearson"): numbers,
    ("perplexity", "perplexity"): likelihoods,
    ("squad", "f1"): lambda rng, n: (answers(rng, n), [[a, "old"] for a in answers(rng, n)]),
    ("squad", "exact_match"): lambda rng, n: (answers(rng, n), [[a] for a in answers(rng, n)]),
    ("record", "exact_match"): lambda rng, n: (answers(rng, n), [[a] for a in answers(rng, n)]),
    ("record", "f1"): lambda rng, n: (answers(rng, n), [[a] for a in answers(rng, n)]),
    ("drop", "f1"): lambda rng, n: (
        [[a] for a in answers(rng, n)],
        [[[a]] for a in answers(rng, n)],
    ),
    ("gsm8k", "accuracy"): sums,
    ("entity_f1", "f1"): tags,
    ("entity_f1", "precision"): tags,
    ("entity_f1", "recall"): tags,
    ("e2e", "BLEU"): descriptions,
}


def score(name, key, sides):
    """The score alone; of E2E's without the Java programs."""
    if name == "e2e":
        return e2e._mteval(*sides)[key]
    return metrics.compute(name, *sides)[key]


@pytest.mark.parametrize(("name", "key"), CASES)
@pytest.mark.parametrize("n", [1, 2, 7, 60])
def test_scores_of_examples_average_to_the_score(name, key, n):
    for seed in range(3):
        sides = CASES[name, key](np.random.default_rng(seed), n)
        found = metrics.per_example(name, *sides)
        assert len(found[key]) == n
        assert np.mean(found[key]) == pytest.approx(score(name, key, sides), abs=1e-9)


def of_drawn(name, key, sides):
    """The function from the numbers of drawn rows to the score of these rows."""
    if name == "e2e":  # of counts, which are those of all rows added up
        counts, _ = bleu_sums_and_nist(e2e._segments(*sides))

        def drawn(rows):
            return bleu(counts[rows].sum(axis=0))
    else:
        metric = metrics._load(name)  # its own _compute: evaluate's checks of a call take 3 ms

        def drawn(rows):
            return metric._compute(*([side[int(i)] for i in rows] for side in sides))[key]

    everything = np.arange(len(sides[0]))
    assert drawn(everything) == pytest.approx(score(name, key, sides), abs=1e-9)
    return drawn


@pytest.mark.slow
@pytest.mark.parametrize(("name", "key"), CASES)
def test_their_spread_is_that_of_scores_of_examples_drawn_anew(name, key):
    n = 150
    sides = CASES[name, key](np.random.default_rng(7), n)
    found = scipy.stats.sem(metrics.per_example(name, *sides)[key])
    drawn = of_drawn(name, key, sides)
    again = scipy.stats.bootstrap(
        (np.arange(n),), drawn, n_resamples=400, vectorized=False, method="percentile", rng=1
    )
    assert found == pytest.approx(again.standard_error, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "key"),
    [("e2e", "BLEU"), ("f1", "f1"), ("matthews_correlation", "matthews_correlation")],
)
def test_so_is_the_spread_of_the_difference_of_two_systems(name, key):
    """Two that agree on half of the examples, each drawn anew with both scores."""
    n, rng = 200, np.random.default_rng(8)
    ours, references = CASES[name, key](rng, n)
    others, _ = CASES[name, key](rng, n)
    theirs = [a if i % 2 else b for i, (a, b) in enumerate(zip(ours, others, strict=True))]
    values = [metrics.per_example(name, said, references)[key] for said in (ours, theirs)]
    found = scipy.stats.sem(np.subtract(*values))
    first, second = (of_drawn(name, key, (said, references)) for said in (ours, theirs))

    def drawn(rows):
        return first(rows) - second(rows)

    again = scipy.stats.bootstrap(
        (np.arange(n),), drawn, n_resamples=300, vectorized=False, method="percentile", rng=1
    )
    assert found == pytest.approx(again.standard_error, rel=0.15)


@pytest.mark.parametrize("name", sorted({base.load(name).main for name in base.names()}))
def test_every_metric_of_a_main_score_has_them(name):
    """So that no task is without a standard error."""
    assert hasattr(metrics._load(name.partition(".")[0]), "per_example")


@pytest.mark.parametrize("name", ["spearman", "f1_macro"])
def test_a_score_without_them_has_none(name):
    assert metrics.per_example(name, [0, 1, 1], [0, 1, 0]) == {}


def test_a_constant_side_has_the_value_that_the_score_has():
    """No correlation is defined, neither of all examples nor of all but one."""
    for name in ("matthews_correlation", "pearson"):
        assert metrics.per_example(name, [1, 1, 1], [0, 1, 0]) == {name: [0.0, 0.0, 0.0]}


def test_an_adapter_gives_those_of_its_main_score():
    adapter = base.adapter(base.load("mezo/record"))
    references = [{"candidates": ["a", "the b"], "right": ["b"]}] * 3
    assert adapter.per_example([1, 0, 1], references) == [1.0, 0.0, 1.0]
    adapter = base.adapter(base.load("lm/wikitext2"))
    values = adapter.per_example([[6.0, 2], [3.0, 1], [1.0, 2]], [1, 1, 1])
    assert np.mean(values) == pytest.approx(np.exp(10 / 5))
