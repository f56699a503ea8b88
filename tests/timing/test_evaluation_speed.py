"""`hift-bench speed --evaluation`: both sides predict the same; no time is asserted."""

import json

import pytest
import torch

from benchmark.timing import evaluation_speed


@pytest.mark.slow
def test_a_row_per_cell_with_a_ratio_of_what_was_measured(cli, monkeypatch):
    monkeypatch.setattr(
        evaluation_speed, "CELLS", (("glue/sst2", "tiny-bert", 6), ("mezo/squad", "tiny-gpt2", 4))
    )
    code, out, _ = cli("speed", "--evaluation", "--batch-size", "2", "--format", "json")
    assert code == 0
    rows = json.loads(out)
    assert [row["against"] for row in rows] == ["Trainer.evaluate", "model.generate"]
    for row in rows:
        expected = row["ours_per_s"] / row["transformers_per_s"]
        assert row["ratio"] == pytest.approx(expected, rel=0.1)


def test_both_sides_generate_the_same_texts():
    sides = evaluation_speed._sides("generation/squad", "tiny-gpt2", 2, 5, torch.device("cpu"))
    ours, theirs = (run() for run in sides.values())
    assert ours == [text.strip() for text in theirs] and len(ours) == 5
