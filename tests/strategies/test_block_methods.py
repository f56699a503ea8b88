"""BAdam, LISA, HFT and MISA as strategies: their options, rates and masters. The methods themselves are held
to written-out loops in tests/engine."""

import copy

import pytest
import torch
from factories import make_spec, make_strategy

from benchmark.models import registry

METHODS = ["badam", "lisa", "lisa_keep", "hft", "misa"]


@pytest.fixture(scope="module")
def loaded():
    torch.manual_seed(0)
    model = registry.load_model(
        registry.source("tiny-bert"), "sequence_classification", 1, num_labels=2
    )
    ids = torch.randint(10, 900, (4, 12), generator=torch.Generator().manual_seed(1))
    return model, {"input_ids": ids, "labels": torch.tensor([0, 1, 1, 0])}


def begin(loaded, strategy, *, steps=12, precision="fp32", **options):
    spec = make_spec(
        **{"strategy": strategy, "options": options, "precision": precision, "lr": 1e-2},
        **{"epochs": None, "max_steps": steps, "model": "tiny-bert"},
    )
    method = make_strategy(spec)
    model = method.prepared(copy.deepcopy(loaded[0])).train()
    return (model, *method.optimizer(model, steps))


def take(model, batch, optimizer, scheduler, steps):
    """Take steps; the rate and the active group of each."""
    seen = []
    for _ in range(steps):
        model(**batch).loss.backward()
        seen.append((optimizer.param_groups[0]["lr"], optimizer.active))
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return seen


@pytest.mark.parametrize("strategy", METHODS)
def test_the_rate_moves_at_every_step_and_the_group_every_dwell_steps(loaded, strategy):
    begun = begin(loaded, strategy, dwell=3)
    seen = take(begun[0], loaded[1], *begun[1:], 12)
    assert [rate for rate, _ in seen] == pytest.approx([1e-2 * (12 - i) / 12 for i in range(12)])
    turns = [[group for _, group in seen[i : i + 3]] for i in range(0, 12, 3)]
    assert all(len(set(turn)) == 1 for turn in turns)
    assert len({turn[0].parameters for turn in turns}) > 1


def test_badam_leaves_out_what_the_package_leaves_out_if_asked(loaded):
    model, optimizer, scheduler = begin(loaded, "badam", dwell=1, embeddings=False, head=False)
    take(model, loaded[1], optimizer, scheduler, 12)
    before = dict(loaded[0].named_parameters())
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all(".layer." in name for name in moved)


def test_a_round_of_hft_is_the_run_unless_it_is_said(loaded):
    model, optimizer, scheduler = begin(loaded, "hft", steps=6)
    active = {group for _, group in take(model, loaded[1], optimizer, scheduler, 6)}
    [half] = active
    before = dict(loaded[0].named_parameters())
    still = {n for n, p in model.named_parameters() if torch.equal(p, before[n])}
    frozen = set(before) - set(half.parameters)
    assert frozen <= still and all(name.endswith("key.bias") for name in still - frozen)


@pytest.mark.parametrize(("strategy", "kept"), [("badam", False), ("misa", False), ("lisa", True)])
def test_masters_of_idle_weights_are_kept_or_made_anew(loaded, strategy, kept):
    model, optimizer, scheduler = begin(loaded, strategy, precision="mixed_hi", dwell=2)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    take(model, loaded[1], optimizer, scheduler, 3)
    held = optimizer.state_bytes()
    assert (held["host"]["master"] > 0) == kept
    assert held["device"]["master"] == 4 * optimizer.active.numel


def test_hift_by_importance_is_an_option(loaded):
    model, optimizer, scheduler = begin(loaded, "hift", order="importance")
    order = [group.index for _, group in take(model, loaded[1], optimizer, scheduler, 12)]
    assert order[:6] == list(range(6)) and sorted(order[6:]) == order[:6] != order[6:]
