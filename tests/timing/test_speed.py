"""`hift-bench speed`: what the rows count. Times are never asserted."""

import pytest

from benchmark.errors import UserError
from benchmark.models import shapes
from benchmark.timing import speed

TINY = shapes.Shape(
    "GPT2LMHeadModel",
    "GPT2Config",
    {"n_embd": 32, "n_layer": 3, "n_head": 2, "vocab_size": 100, "n_positions": 16},
)


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setitem(shapes.SHAPES, "tiny", TINY)
    names = ["full", "hift", "lora"]
    found = speed.measure("tiny", names, batch_size=2, seq_len=8, sweeps=2)
    return {row["name"]: row for row in found}


def test_rows(rows):
    assert list(rows) == ["forward", "limit", "bare", "full", "hift", "lora"]
    assert {row["steps"] for row in rows.values()} == {2 * 5}  # two sweeps of five units
    assert rows["full"]["ratio_to_full"] == rows["limit"]["ratio_to_limit"] == 1
    means = {name: row["mean_ms"] for name, row in rows.items()}
    assert rows["hift"]["ratio_to_limit"] == pytest.approx(means["hift"] / means["limit"], rel=1e-2)
    parameters = shapes.build("tiny").num_parameters()
    tensors = len(list(shapes.build("tiny").parameters()))
    assert rows["full"]["state_bytes"] == 8 * parameters + 4 * tensors  # two moments and a counter
    assert 0 < rows["hift"]["state_bytes"] < rows["full"]["state_bytes"] / 2
    assert rows["forward"]["saved_activation_bytes"] == 0
    # the lowest group's graph spans the model; the frozen weights' inputs are not kept for it
    assert 0 < rows["hift"]["saved_activation_bytes"] <= rows["full"]["saved_activation_bytes"]
    assert rows["hift"]["saved_activation_bytes"] == rows["bare"]["saved_activation_bytes"]


def test_the_range_of_the_ratio_is_that_of_whole_sweeps():
    """By hand: sweeps of two steps, 30/20, 50/25 and 8/8."""
    cells = {
        "full": speed._Cell("full", lambda: None, ms=[10.0, 10.0, 5.0, 20.0, 4.0, 4.0]),
        "limit": speed._Cell("limit", lambda: None, ms=[1.0] * 6),
        "hift": speed._Cell("hift", lambda: None, ms=[10.0, 20.0, 25.0, 25.0, 4.0, 4.0]),
    }
    row = speed._row(cells["hift"], cells, 2)
    assert (row["ratio_low"], row["ratio_high"]) == (1.0, 2.0)
    assert row["ratio_to_full"] == round(88 / 53, 4)
    row = speed._row(cells["hift"], {name: cells[name] for name in ("limit", "hift")}, 2)
    assert row["ratio_to_full"] is row["ratio_low"] is row["ratio_high"] is None


def test_unknown_strategy():
    with pytest.raises(UserError, match="hift"):
        speed.measure("gpt2-12x512", ["hifd"])
