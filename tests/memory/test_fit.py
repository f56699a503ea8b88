"""The search against plain counting up, and what `hift-bench memory` says of budgets."""

import csv
import io
import json
import re
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_cases import folder, shallow

from benchmark.errors import UserError
from benchmark.memory import fit, simulate
from benchmark.memory.fit import Largest, largest
from benchmark.memory.setting import Setting
from benchmark.sizes import parse_bytes


@given(
    start=st.integers(1, 300),
    high=st.integers(1, 300),
    slope=st.integers(0, 9),
    bend=st.integers(0, 3),
    corner=st.integers(0, 200),
    budget=st.integers(-10, 4000),
)
def test_finds_what_counting_up_finds(start, high, slope, bend, corner, budget):
    """A convex function that never falls, as a peak is in batch and length."""
    asked = []

    def total(n):
        asked.append(n)
        return slope * n + bend * max(0, n - corner) ** 2

    found = largest(total, budget, start=start, low=1, high=high)
    fitting = [
        n for n in range(1, high + 1) if slope * n + bend * max(0, n - corner) ** 2 <= budget
    ]
    assert found.value == max(fitting, default=0)
    assert found.bound == (found.value == high)
    assert len(asked) == len(set(asked)), "nothing is simulated twice"
    assert not found.value or found.value in asked
    assert found.bound or found.value + 1 in asked


@pytest.mark.parametrize(("off", "at_most"), [(0, 2), (7 * 10**6, 4), (-(10**9), 9)])
def test_an_estimate_leaves_few_values_to_simulate(off, at_most):
    """The exact value is found however far the estimate is off."""
    asked = []

    def total(n):
        asked.append(n)
        return 13 * 10**9 + 217 * 10**6 * n

    def estimate(n):
        return 13 * 10**9 + 217 * 10**6 * n + off

    found = largest(total, 10**11, start=8, low=1, high=2**20, estimate=estimate)
    assert found.value == (10**11 - 13 * 10**9) // (217 * 10**6)
    assert len(asked) <= at_most and len(asked) == len(set(asked))


def test_takes_few_simulations_of_an_affine_peak():
    asked = []

    def total(n):
        asked.append(n)
        return 13 * 10**9 + 217 * 10**6 * n

    assert largest(total, 10**12, start=8, low=1, high=2**20).value == (10**12 - 13 * 10**9) // (
        217 * 10**6
    )
    assert len(asked) < 15


@pytest.mark.slow
@pytest.mark.parametrize("field", ["batch_size", "seq_len", "group_size"])
def test_what_is_found_fits_and_its_successor_does_not(field):
    case = Setting(model=shallow(), batch_size=2, seq_len=16)
    budget = int(1.2 * simulate.peak(case).total)
    found = fit.what_fits(case, budget)[field]
    assert isinstance(found, Largest) and found.value

    def total(value):
        return simulate.peak(case.but(**{field: value})).total

    assert total(found.value) <= budget
    assert found.bound or total(found.value + 1) > budget


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GiB", 24 * 2**30),
        ("24GB", 24 * 10**9),
        ("80G", 80 * 2**30),
        ("1.5 gib", 3 * 2**29),
        ("512MiB", 2**29),
        ("1000", 1000),
        ("1000b", 1000),
    ],
)
def test_budgets(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "24 apples", "-1GiB", "0", "GiB", "1e9", "nan"])
def test_no_budget(text):
    with pytest.raises(UserError, match="24GiB"):
        parse_bytes(text)


@pytest.mark.slow
def test_the_command_says_what_fits(cli):
    code, out, err = cli(
        *("memory", shallow(), "--strategy", "hift,full", "--batch-size", "2"),
        *("--seq-len", "16", "--budget", "1MiB", "--format", "json"),
    )
    assert code == 0 and err
    hift, full = json.loads(out)
    assert hift["peak_bytes"] < full["peak_bytes"]
    kinds = [f"{kind}_bytes" for kind in simulate.KINDS]
    assert sum(hift[kind] for kind in kinds) == hift["peak_bytes"]
    assert f"{hift['largest']}_bytes" == max(kinds, key=hift.get)
    assert hift["fits"] is True and hift["most_batch_size"] >= 2 and hift["most_group_size"] >= 1
    assert full["fits"] == (full["most_batch_size"] >= 2) and full["most_group_size"] is None


def test_every_strategy_gets_those_of_the_options_that_it_has(cli):
    call = ("memory", shallow(), "--batch-size", "2", "--seq-len", "16", "--format", "json")
    more = ("--strategy", "full,hift,lora", "--group-size", "2", "--option", "r=4")
    code, out, _ = cli(*call, *more)
    assert code == 0
    full, hift, lora = json.loads(out)
    assert (full["m"], hift["m"], lora["m"]) == (None, 2, None)
    alone = Setting(model=shallow(), batch_size=2, seq_len=16)
    assert hift["peak_bytes"] == simulate.peak(alone.but(options={"group_size": 2})).total
    lora_alone = alone.but(strategy="lora", options={"r": 4})
    assert lora["peak_bytes"] == simulate.peak(lora_alone).total
    assert lora["peak_bytes"] < simulate.peak(lora_alone.but(options={})).total


def test_each_strategy_may_have_a_precision_and_every_row_is_shown_whatever_fits(cli):
    code, out, err = cli(
        *("memory", shallow(), "--strategy", "hift:mixed_hi,lora:bf16_weights,full"),
        *("--batch-size", "1", "--seq-len", "2", "--budget", "10KiB", "--format", "json"),
    )
    hift, lora, full = json.loads(out)
    assert code == 0
    case = Setting(model=shallow(), batch_size=1, seq_len=2)
    for row, name, precision in (
        (hift, "hift", "mixed_hi"),
        (lora, "lora", "bf16_weights"),
        (full, "full", "fp32"),
    ):
        assert (row["strategy"], row["precision"]) == (name, precision)
        alone = simulate.peak(case.but(strategy=name, precision=precision))
        assert (row["peak_bytes"], row["host_bytes"]) == (alone.total, alone.host)
        assert row["fits"] is False and row["most_batch_size"] == 0
    assert hift["host_bytes"] > 0 and lora["host_bytes"] == full["host_bytes"] == 0
    assert "budget of 0.00977 MiB: nothing fits; the smallest peak, of " in err


def test_the_verdict_in_text_has_device_and_host_side_by_side(cli):
    code, _, err = cli(
        *("memory", shallow(), "--strategy", "hift:mixed_hi,full", "--batch-size", "1"),
        *("--seq-len", "2"),
    )
    assert code == 0
    assert re.search(
        r"hift in mixed_hi, m = 1: [\d.]+ \wiB on the device and [\d.]+ .iB of host", err
    )
    assert re.search(r"full in fp32: [\d.]+ MiB on the device\n", err)


def test_a_peak_is_simulated_once_until_the_model_changes(monkeypatch, tmp_path):
    monkeypatch.setenv("HIFT_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "model"
    shutil.copytree(shallow(), model)
    case = Setting(model=str(model), batch_size=1, seq_len=8)
    first = simulate.peak(case)
    with monkeypatch.context() as patched:
        patched.setattr(simulate, "sweep", lambda *_, **__: pytest.fail("simulated again"))
        assert simulate.peak(case) == first
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"n_layer": 2}))
    changed = simulate.peak(case).total
    assert changed > first.total
    for path in (tmp_path / "cache" / "peaks").iterdir():
        path.write_text("{")
    assert simulate.peak(case).total == changed, "a damaged file is simulated again"


def test_the_command_in_text(cli):
    code, out, err = cli("memory", shallow(), "--batch-size", "1", "--seq-len", "8")
    assert code == 0
    assert "peak_gib" in out and "activations_gib" in out and "seq_len 8" in out
    assert "simulated for cuda" in err.splitlines()[-1]


def test_the_command_in_csv_is_in_bytes(cli):
    code, out, _ = cli(
        "memory", shallow(), "--batch-size", "1", "--seq-len", "8", "--format", "csv"
    )
    (row,) = csv.DictReader(io.StringIO(out))
    assert code == 0
    assert sum(int(row[f"{kind}_bytes"]) for kind in simulate.KINDS) == int(row["peak_bytes"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--budget", "24GiB", "--measure"], "leave out --measure"),
        (["--budget", "ten"], "'ten'"),
        (["--precision", "fp8"], "mixed_hi"),
        (["--optimizer", "adamww"], "adamw"),
        (["--strategy", "hift,fulll"], "full"),
        (["--strategy", "hift,lora:mixed_hi"], "strategy lora has no precision mixed_hi"),
        (["--strategy", "hift,lora:bf17"], 'did you mean "bf16"'),
        (["--order", "up"], "order"),
        (["--strategy", "full", "--group-size", "2"], "strategy full has no option group_size"),
        (
            ["--strategy", "full,lora", "--order", "random"],
            "none of full, lora has an option order",
        ),
        (["--strategy", "hift", "--option", "r=8"], "strategy hift has no option r"),
        (["--strategy", "lora", "--option", "r=eight"], "strategy lora: r: 'eight'"),
        (["--option", "group_size"], "--option group_size: not NAME=VALUE"),
        (["--group-size", "2", "--option", "group_size=3"], "group_size is given twice"),
        (["--device", "tpu"], "cuda or cpu"),
        (["--seq-len", "4096"], "64 positions"),
    ],
    ids=str,
)
def test_the_command_refuses(cli, more, said):
    code, out, err = cli("memory", folder("llama"), "--batch-size", "1", "--seq-len", "8", *more)
    assert code == 2 and out == ""
    assert said in err.splitlines()[-1] and "Traceback" not in err
