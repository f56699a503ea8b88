"""What `run` and `status` print of a matrix: the report's own numbers, in 80 columns."""

import re
from types import SimpleNamespace

import pytest
from documents import ROOT
from factories import make_cells, make_failure, make_record, make_spec

from benchmark.analysis import summary
from benchmark.report import terminal
from benchmark.report.answer import score_cell


def test_status_shows_the_intervals_and_verdicts_of_the_committed_report(cli):
    matrix = "minilm_optimizers"
    code, out, _ = cli("status", matrix, "--results", str(ROOT / "results"))
    lines = out.splitlines()
    assert code == 0 and max(map(len, lines)) <= 80
    report = (ROOT / "reports" / matrix / "report.md").read_text(encoding="utf-8")
    assert "Always answering the most frequent class" in out
    shown = [line for line in lines if "[0." in line]
    assert len(shown) == 10
    for line in shown:
        label, *shown_cells = re.split(r"  +", line.strip())
        answer = next(row for row in report.splitlines() if row.startswith(f"| {label} |"))
        cells = [cell.strip(" *").replace("\\", "") for cell in answer.split("|")]
        assert len(shown_cells) >= 4 and set(shown_cells) <= set(cells)
    _, wide, _ = cli("status", matrix, "--results", str(ROOT / "results"), "--wide")
    _, table, _ = cli("status", matrix, "--results", str(ROOT / "results"), "--format", "csv")
    assert wide.splitlines()[2].split() == table.splitlines()[0].split(",")


def test_a_mean_so_far_has_its_number_of_seeds_and_what_is_missing_its_reason():
    specs = [make_spec(label=label, seed=s) for label in ("full", "hift") for s in range(3)]
    records = [make_record(specs[0], score=0.5), make_record(specs[1], score=0.6)]
    records.append(make_failure(specs[2], "oom", "out of memory: 3 GiB"))
    rows = summary.rows(make_cells(specs), records)
    (shown,) = terminal.tables(rows, records, [], [])
    full, hift = (list(row.values()) for row in shown.rows)
    assert full[1] == "0.5500 (2 of 3)" and full[-1] == "2 of 3"
    assert hift[1] == "–" and hift[-1] == "0 of 3"
    assert list(terminal.notes(rows, [])) == [
        "1 oom: out of memory: 3 GiB (full)",
        "3 missing: not run yet (hift)",
    ]


@pytest.mark.parametrize(
    ("mean", "interval", "shown"),
    [
        (0.01, (-0.02, 0.04), "0.0100 [0.0000, 0.0400]"),
        (0.99, (0.97, 1.01), "0.9900 [0.9700, 1.0000]"),
        (8.5, (8.0, 9.0), "8.50 [8.00, 9.00]"),
        (0.0, (0.0, 0.0), "0.0000"),  # every answer is wrong
    ],
)
def test_no_interval_leaves_the_range_of_the_score(mean, interval, shown):
    ends = SimpleNamespace(low=interval[0], high=interval[1])
    row = SimpleNamespace(label="full", mean=mean, std=None)
    assert score_cell(row, SimpleNamespace(scores={"full": ends}, strong=())) == shown
