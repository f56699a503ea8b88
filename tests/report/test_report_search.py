"""The section on a learning-rate search: means over its seeds, the rule, edges, and the budget."""

import dataclasses
import tempfile
from pathlib import Path

import pytest
from factories import make_failure, make_record

from benchmark.analysis import summary
from benchmark.matrices import matrix
from benchmark.report import search
from benchmark.report.page import write_report
from benchmark.report.pictures import Gallery

pytestmark = pytest.mark.usefixtures("undrawn")

MATRIX = """
name: made_up
defaults:
  {model: minilm, data: mirror, max_steps: 20, batch_size: 16, seeds: [0],
   search: {lr: [1.0e-4, 2.0e-4, 4.0e-4], seeds: [3, 4], examples: 1000, extend: 3}}
tasks: [glue/sst2]
strategies: {full: {}, head: {}}
"""
# rate -> score; the two seeds lie 0.01 on both sides of it, with standard errors 0.03 and 0.04
INTERIOR = {1e-4: 0.70, 2e-4: 0.80, 4e-4: 0.75}


def cells_of(tmp_path: Path, text=MATRIX):
    path = tmp_path / "made_up.yaml"
    path.write_text(text)
    return matrix.load(path).cells


def trials_of(cell, scores, stderr=(0.03, 0.04), **overrides):
    """The records of a cell's trials; a score of None stands for a diverged trial."""
    records = []
    for rate, score in scores.items():
        for spec, side, error in zip(cell.trials([rate]), (-0.01, 0.01), stderr, strict=True):
            if score is None:
                records.append(make_failure(spec, "diverged", "the loss became nan"))
            else:
                record = make_record(spec, score=score + side, **overrides)
                scores_of = dataclasses.replace(record.scores, stderr=error)
                records.append(dataclasses.replace(record, scores=scores_of))
    return records


def section_of(cells, trials, used=None):
    """The section on cells whose runs used the rates in `used`, by label."""
    used = used or {}
    records = [make_record(s) for c in cells for s in c.runs(used.get(c.label, 2e-4))]
    rows = summary.rows(cells, records)
    with tempfile.TemporaryDirectory() as folder:
        gallery = Gallery(Path(folder), rows)
        return search.section(rows, cells, trials, gallery, [("glue/sst2", "minilm")])


def rate_cells(section, label):
    (row,) = (row for row in section.table.rows if row[2] == label)
    return [(str(cell), type(cell).__name__ == "Strong") for cell in row[3:]]


def both(cells, scores, **fields):
    return [trial for cell in cells for trial in trials_of(cell, scores, **fields)]


def test_each_rate_has_its_mean_over_seeds_and_the_rules_choice_is_bold(tmp_path):
    cells = cells_of(tmp_path)
    section = section_of(cells, both(cells, INTERIOR))
    assert rate_cells(section, "full") == [
        ("0.0002", False),
        ("0.0001: 0.7000 ± 0.0250 (2)", False),  # the root of 0.03² + 0.04², over 2
        ("0.0002: 0.8000 ± 0.0250 (2)", True),
        ("0.0004: 0.7500 ± 0.0250 (2)", False),
    ]
    assert section.warnings == ()
    (rule,) = section.rules
    assert "the best mean" in rule and "by the score" in rule
    (budget,) = section.equal
    assert budget == (
        "Every strategy had the same search budget in glue/sst2, minilm: 3 rates a factor of 2 apart "
        "× 2 seeds × 20 steps of 16 examples, on 1,000 held-out rows."
    )


def test_the_lowest_rate_within_an_error_is_the_rules_and_no_fault(tmp_path):
    text = MATRIX.replace("extend: 3", "choose: lowest_within_error")
    cells = cells_of(tmp_path, text)
    scores = {1e-4: 0.60, 2e-4: 0.79, 4e-4: 0.80}
    section = section_of(cells, both(cells, scores))
    assert [strong for _, strong in rate_cells(section, "full")[1:]] == [False, True, False]
    assert section.warnings == () and "within one standard error" in section.rules[0]
    assert rate_cells(section, "full")[3][0] == "0.0004: 0.8000 ± 0.0250 (2), edge", (
        "the best is what may lie at an edge, not the rate taken"
    )
    section = section_of(cells, both(cells, scores), used={"full": 4e-4, "head": 2e-4})
    assert section.warnings == (
        "glue/sst2, minilm, full: the rate used, 0.0004, is not the one its search chooses: 0.0002",
    )


def test_by_the_loss_the_lowest_is_best(tmp_path):
    cells = cells_of(tmp_path, MATRIX.replace("extend: 3", "by: loss"))
    trials = both(cells, {1e-4: 0.5, 2e-4: 0.3, 4e-4: 0.4}, stderr=(None, None))
    lower = [
        dataclasses.replace(t, scores=dataclasses.replace(t.scores, higher_is_better=False))
        for t in trials
    ]
    section = section_of(cells, lower)
    assert rate_cells(section, "full")[1:] == [
        ("0.0001: 0.5000 (2)", False),
        ("0.0002: 0.3000 (2)", True),
        ("0.0004: 0.4000 (2)", False),
    ]
    assert "by the loss" in section.rules[0] and section.warnings == ()


@pytest.mark.parametrize(
    ("scores", "edge"),
    [
        ({1e-4: 0.8, 2e-4: 0.7, 4e-4: 0.6}, "0.0001: 0.8000 ± 0.0250 (2), edge"),
        ({1e-4: 0.6, 2e-4: 0.7, 4e-4: 0.8}, "0.0004: 0.8000 ± 0.0250 (2), edge"),
        ({1e-4: 0.6, 2e-4: 0.7, 4e-4: None}, None),  # a rate that fails lies beyond
        ({1e-4: None, 2e-4: None, 4e-4: None}, None),
    ],
)
def test_the_best_is_at_an_edge_unless_a_rate_lies_beyond(tmp_path, scores, edge):
    cells = cells_of(tmp_path, MATRIX.replace("extend: 3", "extend: 0"))
    section = section_of(cells, both(cells, scores))
    edges = [text for text, _ in rate_cells(section, "full") if "edge" in text]
    assert edges == ([edge] if edge else [])
    if scores[4e-4] is None:
        assert ("0.0004: diverged", False) in rate_cells(section, "full")


def test_a_grid_that_was_extended_is_another_budget_and_says_so(tmp_path):
    cells = cells_of(tmp_path)
    wider = {1e-4: 0.6, 2e-4: 0.7, 4e-4: 0.8, 8e-4: 0.9, 1.6e-3: 0.5}
    trials = trials_of(cells[0], wider) + trials_of(cells[1], INTERIOR)
    section = section_of(cells, trials, used={"full": 8e-4})
    assert rate_cells(section, "full")[4] == ("0.0008: 0.9000 ± 0.0250 (2)", True)
    assert section.equal == () and section.warnings == (
        "unequal search budget in glue/sst2, minilm: "
        "full: 5 rates (2 of them beyond the grid) a factor of 2 apart × 2 seeds × 20 steps of 16 "
        "examples, on 1,000 held-out rows; "
        "head: 3 rates a factor of 2 apart × 2 seeds × 20 steps of 16 examples, on 1,000 held-out rows",
    )


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ("{search: {lr: [2.0e-5, 2.0e-4, 2.0e-3]}}", "head: 3 rates a factor of 10 apart"),
        ("{search: {lr: [1.0e-4, 2.0e-4, 8.0e-4]}}", "a factor of 2 or 4 apart"),
        ("{search: {seeds: [5, 6]}}", "rules, seeds or training rows differ"),
        ("{search: {examples: 500}}", "on 500 held-out rows"),
        ("{batch_size: 8}", "20 steps of 8 examples"),
        ("{train_examples: 9}", "rules, seeds or training rows differ"),
        ("{lr: 2.0e-4}", "head: a fixed rate, no search"),
    ],
)
def test_the_budget_is_the_same_only_if_it_is_in_every_respect(tmp_path, theirs, words):
    cells = cells_of(tmp_path, MATRIX.replace("head: {}", f"head: {theirs}"))
    trials = trials_of(cells[0], INTERIOR)
    if cells[1].search:
        rates = zip(cells[1].search.lr, INTERIOR.values(), strict=True)
        trials += trials_of(cells[1], dict(rates))
    section = section_of(cells, trials)
    assert section.equal == () and len(section.warnings) == 1
    assert section.warnings[0].startswith("unequal search budget") and words in section.warnings[0]


def test_other_rates_by_the_same_factor_are_the_same_budget_and_zero_shot_needs_none(tmp_path):
    text = MATRIX.replace("head: {}", "head: {search: {lr: [1.0e-3, 2.0e-3, 4.0e-3]}}, none: {}")
    cells = cells_of(tmp_path, text)
    higher = {10 * rate: score for rate, score in INTERIOR.items()}
    trials = trials_of(cells[0], INTERIOR) + trials_of(cells[1], higher)
    section = section_of(cells, trials, used={"head": 2e-3, "none": None})
    assert len(section.equal) == 1 and section.warnings == ()
    assert len(section.table.rows) == 2


def test_a_search_under_way_and_trials_of_another_search(tmp_path):
    cells = cells_of(tmp_path)
    trials = both(cells, INTERIOR)
    section = section_of(cells, trials[1:])
    assert rate_cells(section, "full")[1] == ("0.0001: missing", False)
    assert not any(strong for _, strong in rate_cells(section, "full"))
    assert "glue/sst2, minilm, full: the search is not finished" in section.warnings
    old = [dataclasses.replace(trial, spec_hash="another") for trial in trials]
    assert section_of(cells, old) is None
    given = cells_of(
        tmp_path,
        MATRIX.replace("  {model", "  {lr: 2.0e-4, model", 1).replace(
            "search: {lr: [1.0e-4, 2.0e-4, 4.0e-4], seeds: [3, 4], examples: 1000, extend: 3}", ""
        ),
    )
    assert section_of(given, trials) is None


def test_the_picture_has_each_rate_and_marks_the_chosen_one(tmp_path, undrawn):
    cells = cells_of(tmp_path)
    section_of(cells, both(cells, INTERIOR))
    (axes,) = undrawn["glue/sst2, minilm: learning rates tried"].figure.axes
    lines = [(tuple(line.get_xdata()), line.get_markersize()) for line in axes.get_lines()]
    dots = {at[0]: size for at, size in lines if len(at) == 1}
    assert dots.keys() == INTERIOR.keys() and dots[2e-4] > dots[1e-4] == dots[4e-4]
    assert axes.get_xscale() == "log"


def test_the_section_is_in_the_report(tmp_path):
    cells = cells_of(tmp_path)
    out = tmp_path / "report"
    for trials, there in ((both(cells, INTERIOR), True), ([], False)):
        records = [make_record(spec) for cell in cells for spec in cell.runs(2e-4)]
        write_report(
            name="made_up", cells=cells, records=records, trials=trials, folder=tmp_path, out=out
        )
        for file, bold in (("report.md", "**"), ("index.html", "<strong>")):
            text = (out / file).read_text()
            assert (f"{bold}0.0002: 0.8000 ± 0.0250 (2)" in text) == there
            assert ("Every strategy had the same search budget in" in text) == there
            assert ("The rate chosen is the one with the best mean" in text) == there
