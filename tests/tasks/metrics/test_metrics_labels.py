"""Scores of labels and numbers, against scikit-learn, scipy and the formulas written out."""

import ast
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from tasks import metrics

ROUNDS = 50  # random inputs per metric


def scorer(name):
    """The metric's own function: evaluate's 3 ms around each call are not what these rounds are for."""
    return metrics._load(name)._compute


def labels(rng, classes):
    """Two lists of one length; sometimes of one class only, sometimes equal or opposite."""
    n = int(rng.integers(1, 30))
    references = rng.integers(0, rng.integers(1, classes + 1), n)
    predictions = [
        lambda: rng.integers(0, classes, n),
        lambda: references.copy(),
        lambda: (classes - 1) - references,
        lambda: np.full(n, rng.integers(0, classes)),
    ][rng.integers(0, 4)]()
    return predictions.tolist(), references.tolist()


def counts(predictions, references, positive):
    pairs = list(zip(predictions, references, strict=True))
    tp = sum(p == positive and r == positive for p, r in pairs)
    fp = sum(p == positive and r != positive for p, r in pairs)
    fn = sum(p != positive and r == positive for p, r in pairs)
    return tp, fp, fn, len(pairs) - tp - fp - fn


def f1_of(predictions, references, positive):
    tp, fp, fn, _ = counts(predictions, references, positive)
    return 2 * tp / (2 * tp + fp + fn) if tp else 0.0


def f1_macro_of(predictions, references):
    classes = {*predictions, *references}
    return sum(f1_of(predictions, references, c) for c in classes) / len(classes)


def matthews_of(predictions, references):
    tp, fp, fn, tn = counts(predictions, references, 1)
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / math.sqrt(product) if product else 0.0


LABEL_METRICS = {
    "accuracy": (
        4,
        lambda p, r: sum(a == b for a, b in zip(p, r, strict=True)) / len(p),
        lambda p, r: sklearn.metrics.accuracy_score(r, p),
    ),
    "f1": (
        2,
        lambda p, r: f1_of(p, r, 1),
        lambda p, r: sklearn.metrics.f1_score(r, p, zero_division=0),
    ),
    "f1_macro": (
        4,
        f1_macro_of,
        lambda p, r: sklearn.metrics.f1_score(r, p, average="macro", zero_division=0),
    ),
    "matthews_correlation": (
        2,
        matthews_of,
        lambda p, r: sklearn.metrics.matthews_corrcoef(r, p),
    ),
}


@pytest.mark.parametrize("name", LABEL_METRICS)
def test_label_metric_equals_formula_and_scikit_learn(name):
    classes, formula, reference = LABEL_METRICS[name]
    score, rng = scorer(name), np.random.default_rng(0)
    for _ in range(ROUNDS):
        predictions, truth = labels(rng, classes)
        assert score(predictions, truth) == {
            name: pytest.approx(formula(predictions, truth), abs=1e-12)
        }
        assert reference(predictions, truth) == pytest.approx(
            formula(predictions, truth), abs=1e-12
        )
    assert metrics.compute(name, predictions, truth) == score(predictions, truth)


def mean_ranks(values):
    """Ranks from 1, ties sharing their mean, the slow way."""
    return [
        sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2
        for value in values
    ]


@pytest.mark.parametrize(
    ("name", "prepare", "reference"),
    [
        ("pearson", list, scipy.stats.pearsonr),
        ("spearman", mean_ranks, scipy.stats.spearmanr),
    ],
)
def test_correlation_equals_formula_and_scipy(name, prepare, reference):
    score, rng = scorer(name), np.random.default_rng(1)
    for round_ in range(ROUNDS):
        n = int(rng.integers(3, 30))
        truth = rng.normal(size=n)
        noise = rng.normal(size=n)
        if round_ % 2:  # STS-B's references: tenths from 0 to 5, so with ties
            truth, noise = np.round(truth, 1), np.round(noise, 1)
        predictions = rng.normal() * truth + noise
        got = score(predictions.tolist(), truth.tolist())[name]
        x, y = (np.array(prepare(side)) - np.mean(prepare(side)) for side in (predictions, truth))
        assert got == pytest.approx(x @ y / math.sqrt((x @ x) * (y @ y)), abs=1e-12)
        assert got == pytest.approx(reference(predictions, truth).statistic, abs=1e-12)
    assert metrics.compute(name, predictions.tolist(), truth.tolist()) == {name: got}


@pytest.mark.parametrize("name", ["pearson", "spearman", "matthews_correlation"])
def test_a_constant_side_scores_zero(name):
    assert metrics.compute(name, [1, 1, 1], [0, 1, 1]) == {name: 0.0}
    assert metrics.compute(name, [0, 1, 1], [1, 1, 1]) == {name: 0.0}


@pytest.mark.parametrize("name", metrics.available())
def test_bad_input_is_said_by_name(name):
    with pytest.raises(ValueError, match=f"{name}: there is nothing to score"):
        metrics.compute(name, [], [])
    with pytest.raises(ValueError, match=f"{name}: 2 predictions for 1 references"):
        metrics.compute(name, [1, 0], [1])
    with pytest.raises(ValueError, match=f"{name}: example 1 has no prediction"):
        metrics.compute(name, [1, None], [1, 0])


def test_other_bad_input():
    with pytest.raises(ValueError, match=r"classes 0 and 1, not \[2\]"):
        metrics.compute("f1", [1, 2], [0, 1])
    with pytest.raises(ValueError, match="pearson is nan"):
        metrics.compute("pearson", [1.0, math.nan, 2.0], [0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match=r'no metric "acuracy" \(did you mean "accuracy"'):
        metrics.compute("acuracy", [1], [1])
    with pytest.raises(ValueError, match="available: accuracy"):
        metrics.version("zzz")


@pytest.mark.parametrize("name", metrics.available())
def test_version_and_description(name):
    assert metrics.version(name).isdigit()
    metric = metrics._load(name)
    assert metric.info.description == sys.modules[type(metric).__module__].__doc__


def run(code, **environment):
    paths = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_loads_neither_evaluate_nor_scikit_learn():
    code = (
        "import sys; from tasks import metrics; metrics.version('f1');"
        "print({'evaluate', 'sklearn', 'scipy', 'datasets', 'torch'} & set(sys.modules))"
    )
    assert run(code) == "set()"


FOUR = """\
import multiprocessing
import evaluate, sklearn.metrics  # once for all four, which then meet at the cache
from tasks import metrics

def score(number):
    ready.wait()
    return [metrics.compute(name, [0, 1, 1], [0, 1, 0]) for name in ("accuracy", "f1")]

context = multiprocessing.get_context("fork")
ready = context.Barrier(4)
with context.Pool(4) as pool:
    print(pool.map(score, range(4), chunksize=1))
"""


@pytest.mark.slow
def test_several_processes_with_an_empty_cache_at_once(tmp_path):
    cache = {"HF_HOME": str(tmp_path), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    scores = ast.literal_eval(run(FOUR, **cache, HF_HUB_OFFLINE="1"))
    assert scores == 4 * [[{"accuracy": 2 / 3}, {"f1": 2 / 3}]]
    assert any((tmp_path / "modules").rglob("*.py"))
