"""`hift-bench speed`: what the rows count. Times are never asserted."""

import copy
import json
import re

import pytest
import torch

from benchmark.errors import UserError
from benchmark.models import shapes
from benchmark.strategies import build
from benchmark.strategies.settings import TrainingSettings
from benchmark.timing import speed
from benchmark.timing.bare import LOOPS

TINY = shapes.Shape(
    "GPT2LMHeadModel",
    "GPT2Config",
    {"n_embd": 32, "n_layer": 3, "n_head": 2, "vocab_size": 100, "n_positions": 16},
)


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setitem(shapes.SHAPES, "tiny", TINY)
    variants = {name: speed.Variant(name) for name in ("full", "hift", "lora")}
    found = speed.measure("tiny", variants, batch_size=2, seq_len=8, sweeps=2)
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


def _loss_after(model, batch, step, steps=7):
    """The loss, without dropout, after so many steps with the same dropout."""
    before = [p.detach().clone() for p in model.parameters()]
    torch.manual_seed(1)
    for _ in range(steps):
        step()
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    with torch.no_grad():
        return model.eval()(**batch).loss


def _loop(model, batch, strategy):
    model = strategy.prepare(model)
    optimizer, _ = strategy.optimizer(model, 10**6)

    def step():
        strategy.loss(model, lambda: model(**batch).loss).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


@pytest.mark.parametrize("name", LOOPS)
def test_a_bare_loop_trains_as_its_strategy_does(name, monkeypatch):
    """MeZO's directions are drawn in another order, so the rate is 0 there: both come back to the start."""
    monkeypatch.setitem(shapes.SHAPES, "tiny", TINY)
    torch.manual_seed(0)
    base = shapes.build("tiny", "cpu").train()
    batch = speed._batch(base, 2, 8, torch.device("cpu"))
    options = {"dwell": 2, "order": "bottom2up"} if name == "badam" else {}
    strategy = build(name, TrainingSettings(lr=0.0 if name == "mezo" else 1e-2), options)
    ends = []
    for make in (LOOPS[name], _loop):
        model = copy.deepcopy(base)
        torch.manual_seed(2)  # LoRA's matrices
        ends.append(_loss_after(model, batch, make(model, batch, strategy)))
    assert ends[0] == pytest.approx(float(ends[1]), abs=1e-6)


def test_the_ratio_to_the_bare_loop_of_one_sweep_is_that_of_the_means(monkeypatch):
    monkeypatch.setitem(shapes.SHAPES, "tiny", TINY)
    variants = {name: speed.Variant(name) for name in ("lomo", "bitfit")}
    found = speed.measure("tiny", variants, batch_size=2, seq_len=8, sweeps=1, bare=True)
    rows = {row["name"]: row for row in found}
    assert list(rows) == ["forward", "limit", "bare", "lomo", "bare lomo", "bitfit"]
    ratio = rows["lomo"]["mean_ms"] / rows["bare lomo"]["mean_ms"]
    assert rows["lomo"]["ratio_to_bare"] == pytest.approx(ratio, rel=1e-2)
    assert rows["bitfit"]["ratio_to_bare"] is rows["bare lomo"]["ratio_to_bare"] is None


def test_a_strategy_is_timed_with_several_sets_of_its_options(monkeypatch, cli):
    monkeypatch.setitem(shapes.SHAPES, "tiny", TINY)
    names = "full,hift,hift:group_size=5,hift:weights=stream:update=in_backward"
    size = ("--batch-size", "2", "--seq-len", "8", "--sweeps", "1", "--option", "idle=keep")
    asked = ("speed", "tiny", "--strategies", names, "--checkpointing", *size)
    code, out, err = cli(*asked, "--format", "json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0 and list(rows)[3:] == names.split(","), err
    assert [rows[name]["m"] for name in names.split(",")] == [None, 1, 5, 1]
    assert rows["hift:group_size=5"]["state_bytes"] == rows["full"]["state_bytes"]
    recomputed = rows["full"]["saved_activation_bytes"]
    assert recomputed < rows["bare"]["saved_activation_bytes"], "which recomputes nothing"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hift:dwel=8", "has no option dwel.*dwell"),
        ("hift:dwell", "--strategies hift:dwell: dwell: not NAME=VALUE"),
        ("hifd:dwell=8", "unknown strategy 'hifd'.*hift"),
    ],
)
def test_a_variant_that_is_none(cli, name, said):
    code, _, err = cli("speed", "gpt2-12x512", "--strategies", name)
    assert code == 2 and re.search(said, err) and err.strip().count("\n") == 0


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


def test_a_sweep_is_the_strategy_s_own():
    """By hand: of six steps the last four are a sweep, 59/33; a sweep of eight steps is not there."""
    cells = {
        "full": speed._Cell("full", lambda: None, ms=[10.0, 10.0, 5.0, 20.0, 4.0, 4.0]),
        "limit": speed._Cell("limit", lambda: None, ms=[1.0] * 6),
        "dwell": speed._Cell("dwell", lambda: None, sweep=4, ms=[9.0, 9.0, 25.0, 25.0, 4.0, 5.0]),
    }
    row = speed._row(cells["dwell"], cells, 2)
    assert row["ratio_to_full"] == row["ratio_low"] == row["ratio_high"] == round(59 / 33, 4)
    assert row["steps"] == row["sweep_steps"] == 4 and row["ratio_to_limit"] == 59 / 4
    cells["dwell"].sweep = 8
    row = speed._row(cells["dwell"], cells, 2)
    assert (row["steps"], row["sweep_steps"]) == (6, 8), "and its record is inconclusive"


def test_every_group_is_there_before_a_timed_step(monkeypatch):
    monkeypatch.setitem(shapes.SHAPES, "tiny", TINY)
    variants = {"full": speed.Variant("full"), "turns": speed.Variant("hift", {"dwell": 2})}
    asked = []
    found = speed.measure(
        "tiny", variants, batch_size=2, seq_len=8, sweeps=2, report=lambda *at: asked.append(at)
    )
    rows = {row["name"]: row for row in found}
    assert rows["turns"]["steps"] == rows["turns"]["sweep_steps"] == 2 * 5
    steps = 4 * 5 + 10 + 5 * 10  # the long sweep is awaited; then five rows take ten steps each
    assert asked[-1] == (steps, steps)


def test_unknown_strategy():
    with pytest.raises(UserError, match="hift"):
        speed.measure("gpt2-12x512", {"hifd": speed.Variant("hifd")})
