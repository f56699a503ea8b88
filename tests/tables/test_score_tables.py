"""Score tables from records: the paper's value, ours, the difference and the verdict; no blank is filled."""

import math
from pathlib import Path

import numpy
import pytest
from factories import make_record
from score_records import SST2

from benchmark.analysis import summary
from benchmark.tables import definition, render
from benchmark.tables.compare import _compared


def test_paper_ours_difference_and_verdict(results):
    row = results.cell()
    scores = 100 * numpy.array(list(SST2.values()))
    assert row["paper"] == 94.8
    assert row["ours_mean"] == pytest.approx(scores.mean())
    assert row["ours_std"] == pytest.approx(scores.std(ddof=1))
    assert row["n"] == 3
    assert row["difference"] == pytest.approx(scores.mean() - 94.8)
    assert row["allowed"] == 1.0
    assert row["verdict"] == "within"
    assert row["cites"].startswith("LoRA") and "LoRA_NLU.PNG" in row["source"]
    (shown,) = [
        r for r in results.rows()[1].shown if (r["method"], r["column"]) == ("FT (125.0M)", "SST-2")
    ]
    assert list(shown.values())[4:] == ["94.8", "94.75 ± 0.35 (3)", "-0.05", "within"]


def test_outside_and_the_spread_that_would_allow_it(results):
    assert results.cell("RTE")["verdict"] == "outside"  # 70.1 where 78.7 is printed
    for seed, score in enumerate((0.60, 0.70, 0.80)):
        results.put(make_record(results.spec("glue/rte", seed=seed), score=score))
    row = results.cell("RTE")
    assert row["allowed"] == pytest.approx(2 * 10.0)
    assert row["verdict"] == "inconclusive", "noise does not earn a within"
    assert row["why"] == "the spread of runs would allow 20.00, more than 2"


def compared(mean, std, paper, n=3, random=True, **column):
    """The row of one cell with our `mean` and `std` and the paper's Reference."""
    ours = summary.Row(
        task="t", model="m", strategy="s", label="s", seeds=n, n=n, mean=mean, std=std
    )
    return _compared(ours, paper, definition.Column(task="t", metric="a", **column), random=random)


def test_a_printed_std_counts_and_an_interval_does_not():
    for kind, allowed in (("std", 2 * math.hypot(3, 4)), ("ci", 6.0)):
        paper = definition.Reference(58.0, "%", "a paper", "", 4.0, kind)
        assert compared(0.5, 0.03, paper)["allowed"] == pytest.approx(allowed)


@pytest.mark.parametrize(("score", "verdict"), [(0.646, "within"), (0.6461, "outside")])
def test_a_difference_of_just_the_tolerance_is_within(score, verdict):
    paper = definition.Reference(63.6, "%", "a paper", "")  # 64.6 - 63.6 > 1 in floats
    assert compared(score, 0.001, paper)["verdict"] == verdict


@pytest.mark.parametrize(
    ("std", "mean", "verdict"),
    [
        (0.0, 0.60, "within"),
        (0.010, 0.60, "within"),  # allowed is the cap of 2 points
        (0.011, 0.60, "inconclusive"),  # and 2.2 above it, though the means are equal
        (0.030, 0.65, "inconclusive"),
        (0.030, 0.67, "outside"),  # 7 points, and twice the spread is 6
        (0.001, 0.62, "outside"),
    ],
)
def test_within_is_said_only_under_the_cap(std, mean, verdict):
    paper = definition.Reference(60.0, "%", "a paper", "")
    assert compared(mean, std, paper)["verdict"] == verdict


def test_the_cap_follows_the_column_and_stands_in_the_note():
    paper = definition.Reference(8.7, "", "a paper", "")
    for std, verdict in ((0.09, "within"), (0.11, "inconclusive")):
        assert compared(8.7, std, paper, scale=1, tolerance=0.1)["verdict"] == verdict
    (note,) = (
        n for n in render.render(definition.load("e2e-gpt2"), Path("none")).notes if "√" in n
    )
    assert "at most 2 (BLEU, MET, ROUGE-L) or 0.2 (NIST, CIDEr)" in note


def test_one_seed_is_inconclusive_unless_nothing_was_drawn():
    paper = definition.Reference(60.0, "%", "a paper", "")
    row = compared(0.60, None, paper, n=1)
    assert (row["verdict"], row["difference"]) == ("inconclusive", 0.0) and "one seed" in row["why"]
    assert compared(0.60, None, paper, n=1, random=False)["verdict"] == "within"


def test_a_wide_scatter_earns_no_within_and_a_narrow_one_does():
    """2,000 times three seeds of a method that equals the paper's."""
    generator = numpy.random.default_rng(0)
    paper = definition.Reference(60.0, "%", "a paper", "")
    for spread, most, least in ((5.0, 0.08, 0.0), (0.2, 1.0, 0.99)):
        runs = 60 + spread * generator.standard_normal((2000, 3))
        verdicts = [
            compared(mean / 100, std / 100, paper)["verdict"]
            for mean, std in zip(runs.mean(1), runs.std(1, ddof=1), strict=True)
        ]
        assert least <= verdicts.count("within") / len(verdicts) <= most


def test_a_row_of_ours_without_a_published_value_stands_beside_nothing(results):
    row = results.cell(method="HiFT")
    assert (row["paper"], row["difference"], row["source"]) == (None, None, None)
    assert row["ours_mean"] == pytest.approx(70.1)
    assert row["verdict"] == "no published value"
    assert "not available" in row["cites"]


def test_blanks_are_never_filled(results):
    rows, _ = results.rows()
    assert rows["RoBERTa-base", "Adpt^D (0.3M)", "SST-2"]["verdict"] == "cannot run here"
    assert rows["RoBERTa-base", "FT (125.0M)", "CoLA"]["verdict"] == "not run"
    assert rows["RoBERTa-large", "FT (355.0M)", "SST-2"]["verdict"] == "not run"
    for row in rows.values():
        if row["verdict"] not in ("within", "outside", "inconclusive", "no published value"):
            assert row["why"]
            assert row["ours_mean"] is row["ours_std"] is row["difference"] is None


def test_without_records_and_without_the_matrix(results):
    for path in results.root.rglob("*.json"):
        path.unlink()
    assert results.cell()["why"] == "no records of matrix glue_roberta"
    results.path.unlink()
    assert results.cell()["verdict"] == "not run"
    assert results.cell()["why"] == "no matrix glue_roberta in benchmark/matrices"
