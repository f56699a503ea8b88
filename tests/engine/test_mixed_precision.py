"""Precision: autocast, GradScaler and master weights, against loops written out with torch alone."""

import copy

import pytest
import torch
from reference import batches, loss_of, same_weights, tiny, train, written_out

from benchmark.engine import HiFT, lower
from benchmark.errors import UserError


def _masters_by_hand(model, groups, sequence, data, dtype, *, keep: bool):
    """Mixed^Hi written out: fp32 masters outside the model, which computes in `dtype`.

    keep: masters live for the whole run; otherwise they are made from the weights at each switch.
    """
    model = copy.deepcopy(model)
    named = dict(model.named_parameters())
    masters = {n: p.detach().clone() for n, p in named.items()}
    for parameter in named.values():
        parameter.data = parameter.data.to(dtype)
    optimizers = [
        torch.optim.AdamW([masters[n] for n in names], lr=1e-2, weight_decay=0.1)
        for names in groups
    ]
    for index, ids in zip(sequence, data, strict=True):
        for name, parameter in named.items():
            parameter.requires_grad_(name in groups[index])
        loss_of(model, ids).backward()
        for name in groups[index]:
            if not keep:
                masters[name].copy_(named[name].detach())
            masters[name].grad = named[name].grad.float()
        optimizers[index].step()
        for name in groups[index]:
            named[name].data.copy_(masters[name])
            named[name].grad = None
    return model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("idle", ["keep", "cpu"])
@pytest.mark.parametrize("master", ["all", "active"])
def test_master_weights_are_the_written_out_loop(master, idle, dtype):
    model = tiny()
    groups = model.unit_names()
    expected = _masters_by_hand(
        model, groups, [*range(6)] * 3, batches(18), dtype, keep=master == "all"
    )
    optimizer = HiFT(
        model, "adamw", lr=1e-2, weight_decay=0.1, master=master, low_dtype=dtype, idle=idle
    )
    assert {p.dtype for p in model.parameters()} == {dtype}
    train(model, optimizer, batches(18))
    assert same_weights(model, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("idle", ["keep", "cpu"])
def test_a_model_lowered_beforehand_trains_as_the_written_out_loop(idle, dtype):
    model = tiny(tied=True)
    expected = _masters_by_hand(
        model,
        [[n for n in names if n != "out.weight"] for names in model.unit_names()],
        [*range(6)] * 3,
        batches(18),
        dtype,
        keep=True,
    )
    master = lower(model, dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}
    optimizer = HiFT(model, "adamw", lr=1e-2, weight_decay=0.1, master=master, idle=idle)
    assert not master, "taken, so that nobody else holds the masters"
    train(model, optimizer, batches(18))
    assert same_weights(model, expected)


def test_lowering_keeps_the_weights_themselves_as_masters_and_none_of_frozen_ones():
    model = tiny()
    model.tokens.weight.requires_grad_(False)
    before = {n: (p.data_ptr(), p.detach().clone()) for n, p in model.named_parameters()}
    master = lower(model, torch.bfloat16)
    assert set(before) - set(master) == {"tokens.weight"}
    assert model.tokens.weight.dtype == torch.bfloat16
    for name, weight in master.items():
        place, values = before[name]
        assert weight.data_ptr() == place and torch.equal(weight, values)


def test_a_lowered_model_that_moved_has_only_the_active_masters_on_the_device():
    """The meta device stands for one: the others' masters stay on the host."""
    model = tiny()
    master = lower(model, torch.bfloat16)
    optimizer = HiFT(model.to("meta"), "sgd", lr=1e-2, master=master)
    where = {n: e["master"].device.type for n, e in optimizer.state_dict()["state"].items()}
    active = set(optimizer.active.parameters)
    assert {n for n, device in where.items() if device == "meta"} == active
    assert {n for n, device in where.items() if device == "cpu"} == set(where) - active


@pytest.mark.parametrize(
    "settings", [{}, {"group_size": 2, "update": "in_backward", "piece": 1 << 9}], ids=str
)
def test_masters_that_wait_on_the_device_are_all_there_and_change_no_weight(settings):
    """The paper's mixed against its Mixed^Hi, one of which goes on from the other's checkpoint."""
    mixed_hi = {"lr": 1e-2, "master": "all", "low_dtype": torch.bfloat16, **settings}
    model, other, resumed = tiny(), tiny(), tiny()
    total = sum(p.numel() for p in model.parameters())
    optimizer = HiFT(model, "adamw", idle_master="keep", **mixed_hi)
    expected = HiFT(other, "adamw", **mixed_hi)
    for each, one in ((model, optimizer), (other, expected)):
        train(each, one, batches(16))
    assert same_weights(model, other)
    device, host = optimizer.state_bytes().values()
    assert device["master"] == 4 * total and host["master"] == 0
    assert host["optimizer_state"] == expected.state_bytes()["host"]["optimizer_state"] > 0

    again = HiFT(resumed, "adamw", idle_master="keep", **mixed_hi)
    again.load_state_dict(expected.state_dict())
    resumed.load_state_dict(other.state_dict())
    for each, one in ((resumed, again), (other, expected)):
        train(each, one, batches(24)[16:])
    assert same_weights(resumed, other) and again.state_bytes()["device"]["master"] == 4 * total


def test_a_lowered_model_that_moved_may_have_all_masters_on_the_device():
    """The meta device stands for one."""
    model = tiny()
    master = lower(model, torch.bfloat16)
    optimizer = HiFT(model.to("meta"), "sgd", lr=1e-2, master=master, idle_master="keep")
    entries = optimizer.state_dict()["state"].values()
    assert {entry["master"].device.type for entry in entries} == {"meta"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"master": "none"}, 'pass master="all", not "none"'),
        ({"master": "active", "low_dtype": torch.bfloat16}, 'pass master="all", not "active"'),
        ({"master": "all", "low_dtype": torch.bfloat16, "idle_master": "drop"}, "keep"),
    ],
)
def test_a_place_for_masters_that_are_not_kept_is_refused(settings, said):
    with pytest.raises(UserError, match=said):
        HiFT(tiny(), "adamw", lr=1e-2, **{"idle_master": "keep", **settings})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda master: master.pop("norm.bias"), 'no weight of "norm.bias"'),
        (
            lambda master: master.update({"norm.bias": torch.zeros(9)}),
            r'"norm.bias" has shape \[9\]; the parameter has \[8\]',
        ),
    ],
)
def test_masters_of_another_model_than_was_lowered_are_refused(change, message):
    model = tiny()
    master = lower(model, torch.bfloat16)
    change(master)
    held = len(master)
    with pytest.raises(UserError, match=message):
        HiFT(model, "adamw", lr=1e-2, master=master)
    assert len(master) == held and all(p.requires_grad for p in model.parameters())
    with pytest.raises(UserError, match="needs low-precision weights"):
        HiFT(tiny(), "adamw", lr=1e-2, master=lower(tiny(), torch.bfloat16))
    with pytest.raises(UserError, match="bfloat16 or"):
        lower(model, torch.float64)


def test_masters_add_up_what_low_precision_alone_rounds_away():
    """200 steps of 1e-5 on weights near 1: bf16 cannot see one of them, the masters see all."""
    moved = {}
    for master in ("none", "all"):
        model = tiny()
        for parameter in model.parameters():
            parameter.data.fill_(1.0)
        if master == "none":
            model.to(torch.bfloat16)
        low = {"low_dtype": torch.bfloat16} if master == "all" else {}
        optimizer = HiFT(model, "sgd", lr=1e-4, group_size="all", master=master, **low)
        for _ in range(200):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, 0.1)
            optimizer.step()
        moved[master] = {float(p.detach().float().mean()) for p in model.parameters()}
    assert moved["none"] == {1.0}
    assert max(moved["all"]) < 1.0


def test_weights_that_are_low_already_keep_their_dtype():
    model = tiny().to(torch.bfloat16)
    optimizer = HiFT(model, "adamw", lr=1e-2, master="all")
    train(model, optimizer, batches(7))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert optimizer.state_bytes()["device"]["master"] == 4 * optimizer.trainable_numel


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_the_written_out_loop(dtype):
    model = tiny()
    with torch.autocast("cpu", dtype=dtype):
        expected = written_out(
            model,
            model.unit_names(),
            [*range(6)] * 2,
            lambda ps: torch.optim.AdamW(ps, lr=1e-2),
            batches(12),
        )
        train(model, HiFT(model, "adamw", lr=1e-2), batches(12))
    assert same_weights(model, expected)


OVERFLOWS = {2, 3, 8}


@pytest.mark.parametrize("settings", [{}, {"master": "all", "low_dtype": torch.float16}])
def test_an_overflow_moves_neither_weights_nor_schedule_nor_rate(settings):
    """GradScaler on fp16 with three steps made to overflow: the run goes on as if they were not."""
    model, clean = tiny(), tiny()
    optimizer = HiFT(model, "adamw", lr=1e-2, **settings)
    scheduler = optimizer.delayed_lr("linear", total_steps=12)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)

    def step(model, optimizer, scheduler, ids, overflow):
        with torch.autocast("cpu", dtype=torch.float16, enabled=not settings):
            loss = loss_of(model, ids)
        scaler.scale(loss).backward()
        if overflow:
            next(p for p in model.parameters() if p.grad is not None).grad.fill_(float("inf"))
        scaler.step(optimizer)
        scaler.update(64.0)  # kept, so that both runs unscale by the same number
        scheduler.step()
        optimizer.zero_grad()

    for i, ids in enumerate(batches(12)):
        before, weights = optimizer.position, copy.deepcopy(model)
        rate = optimizer.param_groups[0]["lr"]
        step(model, optimizer, scheduler, ids, i in OVERFLOWS)
        if i in OVERFLOWS:
            assert optimizer.position == before and optimizer.param_groups[0]["lr"] == rate
            assert same_weights(model, weights)
    assert optimizer.position.step == 9

    without = HiFT(clean, "adamw", lr=1e-2, **settings)
    rates = without.delayed_lr("linear", total_steps=12)
    for i, ids in enumerate(batches(12)):
        if i not in OVERFLOWS:
            step(clean, without, rates, ids, False)
    assert same_weights(model, clean)


def test_unscaled_gradients_reach_the_masters():
    """The loss scale cancels: fp16 masters with GradScaler end where they end without it."""
    results = []
    for scale in (1.0, 1024.0):
        model = tiny()
        optimizer = HiFT(model, "sgd", lr=0.1, master="all", low_dtype=torch.float16)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6)
        for ids in batches(6):
            scaler.scale(loss_of(model, ids)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        state = optimizer.state_dict()["state"]
        results.append(torch.cat([state[n]["master"].flatten() for n in sorted(state)]))
    assert (results[0] - results[1]).abs().max() < 2e-4
    assert not torch.equal(results[0], torch.zeros_like(results[0]))
