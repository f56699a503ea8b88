"""The engine against torch itself, to the last bit: one group is FPFT, many are the written-out loop."""

import copy
import importlib.util
import random

import pytest
import torch
from pairs import each_pair
from reference import batches, same_weights, tiny, train, written_out

from benchmark.engine import HiFT, decay_groups

OPTIMIZERS = {
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=1e-2, weight_decay=0.1),
    "sgd": lambda ps: torch.optim.SGD(ps, lr=1e-2),
    "sgdm": lambda ps: torch.optim.SGD(ps, lr=1e-2, momentum=0.9),
    "adagrad": lambda ps: torch.optim.Adagrad(ps, lr=1e-2),
    "adafactor": lambda ps: torch.optim.Adafactor(ps, lr=1e-2),
    "rmsprop": lambda ps: torch.optim.RMSprop(ps, lr=1e-3, momentum=0.5, centered=True),
    "lion": lambda ps: __import__("lion_pytorch").Lion(ps, lr=1e-3),
}
OPTIONS = {
    "adamw": {"lr": 1e-2, "weight_decay": 0.1},
    "rmsprop": {"lr": 1e-3, "momentum": 0.5, "centered": True},
    "lion": {"lr": 1e-3},
}


def _skip_without_package(name: str) -> None:
    if name == "lion" and importlib.util.find_spec("lion_pytorch") is None:
        pytest.skip("lion-pytorch is not installed")


def _cut(units: list[list[str]], m: int) -> list[list[str]]:
    return [[n for unit in units[i : i + m] for n in unit] for i in range(0, len(units), m)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_group_is_full_fine_tuning(name):
    _skip_without_package(name)
    model, full = tiny(), tiny()
    optimizer = HiFT(model, name, group_size="all", **OPTIONS.get(name, {"lr": 1e-2}))
    train(model, optimizer, batches(20))
    train(full, OPTIMIZERS[name](list(full.parameters())), batches(20))
    assert same_weights(model, full)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("idle", ["keep", "cpu"])
def test_every_optimizer_keeps_each_groups_state(name, idle):
    _skip_without_package(name)
    model = tiny()
    expected = written_out(
        model, _cut(model.unit_names(), 2), [0, 1, 2] * 3, OPTIMIZERS[name], batches(9)
    )
    options = OPTIONS.get(name, {"lr": 1e-2})
    train(model, HiFT(model, name, group_size=2, idle=idle, **options), batches(9))
    assert same_weights(model, expected)


@pytest.mark.parametrize(
    ("m", "order", "accumulate"),
    each_pair(range(1, 7), ["bottom2up", "top2down", "random"], [1, 2, 3]),
)
def test_hift_is_the_written_out_loop(m, order, accumulate):
    """Three sweeps with weight decay and clipping, every m of six units."""
    model = tiny()
    groups = _cut(model.unit_names(), m)
    queue = list(range(len(groups)))
    if order == "top2down":
        queue.reverse()
    if order == "random":
        random.Random(5).shuffle(queue)
    data = batches(3 * len(groups) * accumulate)
    expected = written_out(
        model, groups, queue * 3, OPTIMIZERS["adamw"], data, accumulate=accumulate, clip=0.5
    )
    optimizer = HiFT(
        model, torch.optim.AdamW, lr=1e-2, weight_decay=0.1, group_size=m, order=order, seed=5
    )
    train(model, optimizer, data, accumulate=accumulate, clip=0.5)
    assert same_weights(model, expected)


def test_hyper_parameters_of_a_parameter_survive_switching():
    """No decay on norms and biases, as transformers does it: through two sweeps, against the loop."""
    model = tiny()
    named = dict(model.named_parameters())

    def make(ps):
        return torch.optim.AdamW(
            [
                {"params": [p for p in ps if p.ndim >= 2], "weight_decay": 0.5},
                {"params": [p for p in ps if p.ndim < 2], "weight_decay": 0.0, "lr": 3e-2},
            ],
            lr=1e-2,
        )

    groups = model.unit_names()
    expected = written_out(model, groups, [*range(6), *range(6)], make, batches(12))
    split = decay_groups(model, 0.5)
    assert {n for g in split for n in g["params"]} == set(named)
    split[1]["lr"] = 3e-2
    train(model, HiFT(model, "adamw", lr=1e-2, param_groups=split), batches(12))
    assert same_weights(model, expected)


def test_dwell_and_a_given_order_are_the_written_out_loop():
    model = tiny()
    groups = _cut(model.unit_names(), 2)
    sequence = [2, 2, 0, 0, 1, 1, 2, 2]  # the first group of the order comes twice a sweep
    expected = written_out(model, groups, sequence * 2, OPTIMIZERS["adamw"], batches(16))
    optimizer = HiFT(
        model, "adamw", group_size=2, order=[2, 0, 1, 2], dwell=2, lr=1e-2, weight_decay=0.1
    )
    train(model, optimizer, batches(16))
    assert same_weights(model, expected)


def test_a_closure_is_evaluated_for_the_active_group():
    from reference import loss_of

    model, other = tiny(), tiny()
    stepped = HiFT(model, "sgdm", lr=1e-2)
    plain = HiFT(other, "sgdm", lr=1e-2)
    for ids in batches(7):

        def closure(ids=ids):
            stepped.zero_grad()
            loss = loss_of(model, ids)
            loss.backward()
            return loss

        loss = stepped.step(closure)
        assert loss.item() == loss_of(other, ids).item()
        train(other, plain, [ids])
    assert same_weights(model, other)


def test_a_deep_copy_of_the_model_is_another_model():
    """The reference loops copy models: an engine on one must not mark the other."""
    model = tiny()
    HiFT_a = HiFT(model, "sgd", lr=1e-2)
    twin = copy.deepcopy(model)
    for p in twin.parameters():
        p.requires_grad_(True)
    assert HiFT(twin, "sgd", lr=1e-2).groups == HiFT_a.groups


@pytest.mark.parametrize("name", ["adamw8bit", "lion8bit"])
@pytest.mark.parametrize("idle", ["cpu", "drop"])
def test_eight_bit_state_of_bitsandbytes(name, idle):
    """One group equals bitsandbytes itself; several equal the loop; the state really is 8-bit."""
    bnb = pytest.importorskip("bitsandbytes")
    cls = {"adamw8bit": bnb.optim.AdamW8bit, "lion8bit": bnb.optim.Lion8bit}[name]
    full, model = tiny(depth=2, width=64), tiny(depth=2, width=64)
    train(full, cls(list(full.parameters()), lr=1e-3), batches(6))
    train(model, HiFT(model, name, lr=1e-3, group_size="all"), batches(6))
    assert same_weights(model, full)

    model = tiny(depth=2, width=64)
    steps = 8 if idle == "cpu" else 4  # one visit each: dropping changes nothing yet
    sequence = [i % 4 for i in range(steps)]
    expected = written_out(
        model, model.unit_names(), sequence, lambda ps: cls(ps, lr=1e-3), batches(steps)
    )
    optimizer = HiFT(model, name, lr=1e-3, idle=idle)
    train(model, optimizer, batches(steps))
    assert same_weights(model, expected)
    if idle == "cpu":
        state = optimizer.state_dict()["state"]["blocks.0.up.weight"]
        assert state["state1"].dtype == torch.uint8

        resumed = HiFT(expected.requires_grad_(True), name, lr=1e-3)
        resumed.load_state_dict(optimizer.state_dict())
        assert resumed.state_bytes() == optimizer.state_bytes(), (
            "one table of 8-bit numbers for all"
        )
        for each, one in ((model, optimizer), (expected, resumed)):
            train(each, one, batches(5))
        assert same_weights(model, expected)
