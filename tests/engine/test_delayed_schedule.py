"""Group and learning-rate traces against the paper's algorithm and the authors' logged rates."""

import csv
import math
import random
import warnings
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import batches, loss_of, tiny, train

from benchmark.engine import HiFT, Schedule, Unit, make_plan

LOGS = Path(__file__).parents[3] / "shared" / "paper" / "hift_readme_logs.csv"


def _units(n: int) -> list[Unit]:
    return [Unit(f"u{i}", (f"u{i}.w",), 10, "block") for i in range(n)]


def _trace(plan, steps: int) -> list[list[int]]:
    """Unit numbers of each step's group."""
    return [[int(name[1:]) for name in plan.group_at(s).units] for s in range(steps)]


def test_paper_queue_of_fourteen_units_by_four():
    """k = ceil(14/4) = 4 fixed groups; the last holds two units (Algorithm 1)."""
    cut = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13]]
    up = make_plan(_units(14), group_size=4)
    assert _trace(up, 9) == [*cut, *cut, cut[0]]
    down = make_plan(_units(14), group_size=4, order="top2down")
    assert _trace(down, 5) == [*cut[::-1], cut[3]]


def test_reference_queue_of_fourteen_units_by_four():
    """The authors' trainer rotates: traced from their code (hift/trainer.py:662-679)."""
    plan = make_plan(_units(14), group_size=4, queue="reference")
    rotating = [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
        [12, 13, 0, 1],
        [2, 3, 4, 5],
        [6, 7, 8, 9],
        [10, 11, 12, 13],
    ]
    assert _trace(plan, 8) == [*rotating, rotating[0]]
    rate = plan.rate("linear", total_steps=30, mode="reference")
    # a "sweep" is floor(14/4) = 3 steps and the length stays 30
    assert [rate.factor(s) for s in (0, 2, 3, 29)] == [1.0, 1.0, 29 / 30, 21 / 30]


def test_reference_rate_barely_decays():
    """Run of the original code, n = 4, 9 steps, linear: still 0.78 of the start after training."""
    rate = make_plan(_units(4)).rate("linear", total_steps=9, mode="reference")
    assert round(rate.factor(8), 2) == 0.78


@pytest.mark.skipif(not LOGS.exists(), reason="the shared paper data is not here")
def test_reference_rate_reproduces_the_logged_vicuna_run():
    """The authors' Vicuna log (linear, 750 steps, 2e-5) fits k = 35 units at every printed line."""
    with open(LOGS) as file:
        rows = [r for r in csv.DictReader(file) if r["table_id"] == "hift_log_vicuna"]
    logged = [
        (int(r["note"].split("optimizer step ")[1].split()[0]), float(r["value"]))
        for r in rows
        if r["column"] == "learning_rate"
    ]
    assert len(logged) >= 15

    def misses(k: int) -> int:
        rate = make_plan(_units(k)).rate("linear", total_steps=750, mode="reference")
        return sum(not math.isclose(2e-5 * rate.factor(s), lr, rel_tol=1e-9) for s, lr in logged)

    assert misses(35) == 0
    assert misses(34) > 0


def test_paper_rate_spans_the_sweeps_and_ends_at_its_end():
    """24 steps of 6 units are 4 sweeps: linear falls 1, 3/4, 2/4, 1/4 and would be 0 at step 24."""
    rate = make_plan(_units(6)).rate("linear", total_steps=24)
    assert [rate.factor(s) for s in range(25)] == [
        *[1.0] * 6,
        *[0.75] * 6,
        *[0.5] * 6,
        *[0.25] * 6,
        0.0,
    ]
    cosine = make_plan(_units(6)).rate("cosine", total_steps=24)
    assert [round(cosine.factor(s), 6) for s in (0, 6, 12, 18, 24)] == [
        1,
        0.853553,
        0.5,
        0.146447,
        0,
    ]


def test_warm_up_rises_by_sweeps_from_above_zero():
    rate = make_plan(_units(4)).rate("linear", total_steps=20, warmup_steps=8)
    assert [rate.factor(s) for s in range(0, 20, 4)] == [1 / 3, 2 / 3, 1.0, 2 / 3, 1 / 3]


def test_one_group_without_warm_up_is_the_usual_linear_schedule():
    """k = 1 leaves nothing to delay: transformers' own schedule, factor by factor."""
    from transformers import get_linear_schedule_with_warmup

    model = tiny()
    plain = torch.optim.SGD(model.parameters(), lr=1.0)
    theirs = get_linear_schedule_with_warmup(plain, 0, 11)
    rate = make_plan(_units(6), group_size="all").rate("linear", total_steps=11)
    for step in range(12):
        assert rate.factor(step) == theirs.get_last_lr()[0]
        plain.step()
        theirs.step()


def test_the_scheduler_shows_the_rate_in_param_groups():
    model = tiny()
    groups = [
        {"params": [n for n, p in model.named_parameters() if p.ndim > 1], "lr": 1e-2},
        {"params": [n for n, p in model.named_parameters() if p.ndim < 2], "lr": 1e-3},
    ]
    optimizer = HiFT(model, "sgd", param_groups=groups, group_size=2)
    scheduler = optimizer.delayed_lr("linear", total_steps=9)
    seen = []

    def look():
        seen.append([g["lr"] for g in optimizer.param_groups])

    train(model, optimizer, batches(9), scheduler=scheduler, before_step=look)
    factors = [1.0] * 3 + [2 / 3] * 3 + [1 / 3] * 3
    assert seen == [[1e-2 * f, 1e-3 * f] for f in factors]
    assert scheduler.get_last_lr() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("scheduler", "warned"),
    [
        (lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, 12), 1),
        (lambda optimizer: optimizer.delayed_lr("linear", total_steps=12), 0),
        (lambda optimizer: optimizer.delayed_lr("linear", total_steps=12, mode="reference"), 0),
        (lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 3), 0),  # 3 steps are a sweep
    ],
    ids=["linear", "delayed", "reference", "by sweep"],
)
def test_a_rate_that_changes_within_a_sweep_is_said_once(scheduler, warned):
    model = tiny()
    optimizer = HiFT(model, "sgd", lr=1e-2, group_size=2)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(model, optimizer, batches(12), scheduler=scheduler(optimizer))
    assert ["delayed_lr()" in str(each.message) for each in said] == [True] * warned


def test_calling_the_scheduler_more_often_moves_nothing():
    model = tiny()
    optimizer = HiFT(model, "sgd", lr=1.0)
    scheduler = optimizer.delayed_lr("linear", total_steps=12)
    rates = []
    for ids in batches(12):
        rates.append(optimizer.param_groups[0]["lr"])
        loss_of(model, ids).backward()
        optimizer.step()
        for _ in range(3):
            scheduler.step()
        optimizer.zero_grad()
    assert rates == [1.0] * 6 + [0.5] * 6


def test_any_torch_scheduler_works():
    model = tiny()
    optimizer = HiFT(model, "sgd", lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=6, gamma=0.5)
    train(model, optimizer, batches(13), scheduler=scheduler)
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_random_is_shuffled_once_and_reshuffle_each_sweep():
    expected = list(range(9))
    random.Random(3).shuffle(expected)
    kept = [Schedule(9, "random", seed=3).groups_at(s)[0] for s in range(27)]
    assert kept == expected * 3
    fresh = [Schedule(9, "reshuffle", seed=3).groups_at(s)[0] for s in range(27)]
    sweeps = [fresh[i : i + 9] for i in (0, 9, 18)]
    assert all(sorted(sweep) == list(range(9)) for sweep in sweeps)
    assert len({tuple(sweep) for sweep in sweeps}) == 3
    drawn = {Schedule(4, "sample", seed=1, dwell=2).groups_at(s)[0] for s in range(80)}
    assert drawn == {0, 1, 2, 3}


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(1, 12),
    m=st.integers(1, 12),
    dwell=st.integers(1, 4),
    order=st.sampled_from(["bottom2up", "top2down", "random", "reshuffle"]),
    seed=st.integers(0, 99),
    steps=st.integers(1, 120),
)
def test_schedule_properties(n, m, dwell, order, seed, steps):
    """Every unit once a sweep; update counts of groups differ by at most one turn; rates constant
    within a sweep and never rising after warm-up; the trace is a function of the step alone."""
    m = min(m, n)
    plan = make_plan(_units(n), group_size=m, order=order, seed=seed, dwell=dwell)
    k = math.ceil(n / m)
    assert len(plan.groups) == k and plan.schedule.sweep_steps == k * dwell
    assert sorted(u for g in plan.groups for u in g.units) == sorted(f"u{i}" for i in range(n))
    trace = [plan.group_at(s).index for s in range(steps)]
    for sweep in range(steps // (k * dwell)):
        part = trace[sweep * k * dwell : (sweep + 1) * k * dwell]
        assert sorted(part) == sorted(list(range(k)) * dwell)
        assert all(len(set(part[i : i + dwell])) == 1 for i in range(0, k * dwell, dwell))
    counts = [trace.count(g) for g in range(k)]
    assert max(counts) - min(counts) <= dwell
    rate = plan.rate("linear", total_steps=steps)
    factors = [rate.factor(s) for s in range(steps)]
    assert all(a >= b for a, b in pairwise(factors)) and min(factors) > 0
    assert all(factors[s] == factors[s - 1] for s in range(1, steps) if s % (k * dwell))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    m=st.integers(1, 6),
    order=st.sampled_from(["bottom2up", "top2down", "random"]),
    dwell=st.integers(1, 3),
    accumulate=st.integers(1, 3),
    cut=st.integers(0, 12),
    idle=st.sampled_from(["keep", "cpu", "drop"]),
)
def test_a_resumed_run_ends_like_the_unbroken_one(m, order, dwell, accumulate, cut, idle):
    """State saved after `cut` optimizer steps into a new model and optimizer, whatever the settings."""
    steps = 12
    data = batches(steps * accumulate)
    knobs = {"group_size": m, "order": order, "dwell": dwell, "seed": 2, "lr": 1e-2}
    whole, first, second = tiny(), tiny(), tiny(seed=7)
    train(whole, HiFT(whole, "adamw", idle=idle, **knobs), data, accumulate=accumulate)
    optimizer = HiFT(first, "adamw", idle=idle, **knobs)
    train(first, optimizer, data[: cut * accumulate], accumulate=accumulate)
    resumed = HiFT(second, "adamw", idle="keep" if idle == "cpu" else idle, **knobs)
    resumed.load_state_dict(optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    assert resumed.position == optimizer.position
    train(second, resumed, data[cut * accumulate :], accumulate=accumulate)
    assert all(
        torch.equal(p, q) for p, q in zip(whole.parameters(), second.parameters(), strict=True)
    )
