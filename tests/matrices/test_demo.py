"""The demo shows learning: every strategy beats the majority class by more than the draw of examples."""

from pathlib import Path

import pytest
from runs import Watch
from scipy.stats import binomtest

from benchmark.analysis import summary, verdicts
from benchmark.matrices import matrix, runner
from benchmark.records import record

DEMO = matrix.load(Path(runner.__file__).with_name("demo.yaml"))


def test_the_demo_compares_three_strategies_on_two_tasks():
    assert len({cell.task for cell in DEMO.cells}) == 2
    assert {cell.label for cell in DEMO.cells} == {"full", "hift", "lora"}


@pytest.mark.slow
def test_every_strategy_is_above_the_majority_class(tmp_path, in_process):
    """The bound is the lower end of the one-sided 99.9 % interval."""
    in_process()
    runner.run(DEMO, tmp_path, tracker=runner.Untracked(), progress=Watch())
    folder = tmp_path / DEMO.name
    records = record.load_all(folder)
    rows = summary.rows(DEMO.cells, records)
    majorities = verdicts.majorities(verdicts.judge(DEMO.cells, rows, records, folder))
    assert len(majorities) == len(DEMO.cells)
    for row, cell in zip(rows, DEMO.cells, strict=True):
        examples = cell.settings["eval_examples"]
        right = binomtest(round(row.mean * examples), examples, alternative="greater")
        least = right.proportion_ci(0.999).low
        majority = majorities[row.task, row.model, row.label]
        assert least > majority, (row.task, row.label, row.mean, majority)
