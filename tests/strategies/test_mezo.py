"""MeZO against SPSA written out with stored directions, and its memory against that of a forward pass."""

import copy
import random

import pytest
import torch
from factories import make_spec, make_strategy
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmark.engine.update import coming_update
from benchmark.errors import UserError
from benchmark.measure.live_bytes import LiveBytes
from benchmark.measure.optimizer_state import state_bytes
from benchmark.memory import simulate
from benchmark.memory.setting import Setting
from benchmark.memory.training import Training
from benchmark.models import registry
from benchmark.strategies import options_of

STEPS, LR, EPS, DECAY = 5, 1e-2, 1e-3, 0.1


def mezo(**fields):
    spec = make_spec(strategy="mezo", lr=LR, schedule="constant", **fields)
    return make_strategy(spec)


@pytest.fixture(scope="module")
def bert():
    """A tiny model with dropout, in fp64, and a batch."""
    torch.manual_seed(0)
    source = registry.source("tiny-bert")
    model = registry.load_model(source, "sequence_classification", 1, num_labels=2)
    ids = torch.randint(10, 900, (4, 12))
    batch = {"input_ids": ids, "labels": torch.tensor([0, 1, 1, 0])}
    return model.double(), batch


def train(model, batch, strategy, steps=STEPS):
    """The losses of `steps` steps of an ordinary loop."""
    optimizer, scheduler = strategy.optimizer(model, steps)
    losses = []
    for _ in range(steps):
        loss = strategy.loss(model, lambda: model(**batch).loss)
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


def test_it_is_spsa_with_the_directions_that_it_never_stores(bert):
    """g = (L(θ + εz) - L(θ - εz)) / 2ε and θ ← θ - lr (g z + decay θ), with decay on matrices alone."""
    model, batch = copy.deepcopy(bert[0]).train(), bert[1]
    losses = train(model, batch, mezo(weight_decay=DECAY, seed=3))

    reference = copy.deepcopy(bert[0]).eval()
    weights = [p for p in reference.parameters() if p.ndim >= 2]
    weights += [p for p in reference.parameters() if p.ndim < 2]
    seeds = random.Random(3)
    with torch.no_grad():
        for step in range(STEPS):
            generator = torch.Generator().manual_seed(seeds.randrange(2**31))
            theta = [p.clone() for p in weights]
            z = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in weights]
            sides = []
            for sign in (1, -1):
                for p, at, direction in zip(weights, theta, z, strict=True):
                    p.copy_(at + sign * EPS * direction)
                sides.append(reference(**batch).loss)
            slope = (sides[0] - sides[1]) / (2 * EPS)
            for p, at, direction in zip(weights, theta, z, strict=True):
                decay = DECAY if p.ndim >= 2 else 0.0
                p.copy_(at - LR * (slope * direction + decay * at))
            assert losses[step] == pytest.approx(sides[0].item(), abs=1e-9)
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-9)
        assert not torch.equal(ours, dict(bert[0].named_parameters())["classifier.weight"])


def test_large_matrices_are_drawn_in_pieces(bert, monkeypatch):
    """With pieces of a few rows, every number of a matrix still moves, and not along its neighbour's."""
    monkeypatch.setattr("benchmark.strategies.rules.zeroth_order.PIECE", 200)
    model = copy.deepcopy(bert[0]).train()
    train(model, bert[1], mezo(), steps=1)
    before = dict(bert[0].named_parameters())
    for name, p in model.named_parameters():
        moves = (p - before[name]).flatten()
        assert moves.abs().min() > 0 and len(moves.unique()) == len(moves)


def test_other_random_numbers_are_those_without_it_and_modes_stay(bert):
    model = copy.deepcopy(bert[0]).train()
    model.bert.encoder.eval()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    train(model, bert[1], mezo(), steps=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes


def test_autocast_does_not_see_the_weights_of_the_first_pass_again(bert):
    """Autocast keeps bf16 copies of the weights, with which both losses would be the same."""
    slopes = []
    for low in (False, True):
        model, strategy = copy.deepcopy(bert[0]).float().train(), mezo()
        optimizer, _ = strategy.optimizer(model, 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            strategy.loss(model, lambda model=model: model(**bert[1]).loss)
        slopes.append(optimizer._estimate[1])
    assert slopes[1] == pytest.approx(slopes[0], rel=0.5) and slopes[1] != 0


def test_there_are_no_gradients_and_no_state(bert):
    model, strategy = copy.deepcopy(bert[0]).train(), mezo()
    optimizer, _ = strategy.optimizer(model, 1)
    strategy.loss(model, lambda: model(**bert[1]).loss).backward()
    assert all(p.grad is None for p in model.parameters())
    update = coming_update(model, optimizer)
    assert update.gradient_bytes == 0
    assert update.numel == sum(p.numel() for p in model.parameters())
    assert state_bytes(optimizer)["device"]["optimizer_state"] == 0


def test_its_peak_is_that_of_a_forward_pass():
    """On a model whose token embeddings are most of its weights."""
    setting = Setting(
        model="gpt2-12x512", strategy="mezo", head="sequence_classification", seq_len=128
    )
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    training = Training(setting, fake=fake)
    model = training.model.eval()
    resident = [*model.parameters(), *model.buffers(), *training.batch.values()]
    with fake, torch.no_grad(), LiveBytes(resident) as counter:
        model(**training.batch)
    found = simulate.peak(setting, device="cpu")
    assert found.total == pytest.approx(counter.peak, rel=0.02)
    assert found.gradients == found.optimizer_state == 0


@pytest.mark.parametrize(("adapter", "options"), [("lora", {"r": 2}), ("prefix", {"tokens": 5})])
def test_with_an_adapter_it_trains_what_that_strategy_trains(bert, adapter, options):
    alone = make_strategy(make_spec(strategy=adapter, options=options))
    other = alone.prepare(copy.deepcopy(bert[0]).float())
    expected = {n for n, p in other.named_parameters() if p.requires_grad}
    strategy = mezo(options={"adapter": adapter, "adapter_options": options})
    assert strategy.added_positions == alone.added_positions
    model = strategy.prepare(copy.deepcopy(bert[0]).float()).train()
    start = {n: p.clone() for n, p in model.named_parameters()}
    train(model, bert[1], strategy, steps=1)
    assert {n for n, p in model.named_parameters() if not torch.equal(p, start[n])} == expected


@pytest.mark.parametrize("wrong", [{"eps": 0}, {"adapter": "hift"}], ids=str)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValueError):
        options_of("mezo")(**wrong)
    with pytest.raises(UserError, match="strategy mezo: "):
        mezo(options=wrong)
