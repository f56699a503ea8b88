"""Bad input: one line that says what is wrong and what is valid, before any weight changes."""

import copy

import pytest
import torch
from reference import batches, same_weights, tiny, train
from torch import nn

from benchmark.engine import HiFT, Ledger, Schedule, Unit, find_units, make_plan
from benchmark.errors import UserError

BAD = {
    "m below 1": ({"group_size": 0}, 'from 1 to 6, or "all": 0'),
    "m negative": ({"group_size": -2}, "from 1 to 6"),
    "m no number": ({"group_size": 1.5}, "from 1 to 6"),
    "m boolean": ({"group_size": True}, "from 1 to 6"),
    "m above n": ({"group_size": 7}, 'more than the 6 units; use 6 or "all"'),
    "order": ({"order": "bottom2top"}, 'did you mean "bottom2up"'),
    "order misses a group": ({"order": [0, 1, 2]}, "each of the 6 groups"),
    "order names no group": ({"order": [0, 1, 2, 3, 4, 9]}, "each of the 6 groups"),
    "dwell": ({"dwell": 0}, "at least 1: 0"),
    "idle": ({"idle": "gpu"}, "unknown idle"),
    "queue": ({"queue": "papre"}, 'did you mean "paper"'),
    "checkpointing": ({"checkpointing": "all"}, "valid: active_path"),
    "frozen unit": ({"frozen": ["embedding"]}, 'did you mean "embeddings"'),
    "all frozen": (
        {"frozen": ["embeddings", "head", *(f"blocks.{i}" for i in range(4))]},
        "every unit",
    ),
    "always unit": ({"always_active": ["had"]}, 'did you mean "head"'),
    "update": ({"update": "in_bakward"}, 'did you mean "in_backward"'),
    "piece": ({"piece": 0}, "at least 1: 0"),
    "optimizer name": ({"optimizer": "adamv"}, 'did you mean "adam'),
    "optimizer type": ({"optimizer": nn.Linear}, "torch.optim class or a name"),
    "optimizer with a fixed list": ({"optimizer": torch.optim.LBFGS}, "LBFGS"),
    "unknown option": ({"beta": 0.9}, "AdamW.*beta"),
    "bad option": ({"betas": (2.0, 0.9)}, "beta"),
    "needed argument": (
        {"optimizer": type("Needy", (torch.optim.SGD,), {"__init__": lambda s, p, needed: None})},
        "Needy.*needed",
    ),
    "shapes the optimizer cannot take": ({"optimizer": "muon"}, "Muon"),
    "master": ({"master": "some"}, "valid: none, active, all"),
    "master of fp32 weights": ({"master": "all"}, "low_dtype"),
    "low_dtype without master": ({"low_dtype": torch.bfloat16}, "needs master"),
    "low_dtype not low": ({"master": "all", "low_dtype": torch.float64}, "bfloat16 or"),
    "param_groups no dict": ({"param_groups": [["norm.weight"]]}, '"params"'),
    "param_groups misses some": (
        {"param_groups": [{"params": ["norm.weight"]}]},
        "in no param_groups",
    ),
    "param_groups twice": (
        {"param_groups": [{"params": ["norm.weight"]}, {"params": ["norm.weight"]}]},
        "two param_groups",
    ),
    "unit twice": ({"units": [Unit("a", ("norm.weight",), 8, "head")] * 2}, "in two units"),
    "unit of another model": (
        {"units": [Unit("a", ("norm.wight",), 8, "head")]},
        'did you mean "norm.weight"',
    ),
    "units that leave some out": (
        {"units": [Unit("a", ("norm.weight",), 8, "head")]},
        "in no unit",
    ),
    "empty unit": ({"units": [Unit("a", (), 0, "head")]}, "holds no parameter"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_change_nothing(case):
    settings, message = BAD[case]
    model = tiny()
    before = copy.deepcopy(model)
    settings = {"optimizer": "adamw", "lr": 1e-3} | settings
    if case in ("optimizer type", "needed argument"):
        settings.pop("lr")
    with pytest.raises(UserError, match=message) as caught:
        HiFT(model, **settings)
    assert "\n" not in str(caught.value)
    assert same_weights(model, before)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())


def test_a_model_of_frozen_weights_is_refused():
    model = tiny().requires_grad_(False)
    with pytest.raises(UserError, match="every parameter of Tiny is frozen"):
        HiFT(model, lr=1e-3)


def test_a_model_without_blocks_is_refused_but_its_units_can_be_given():
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    with pytest.raises(UserError, match="pass units="):
        HiFT(model, lr=1e-3)
    units = [Unit(part, (f"{part}.weight", f"{part}.bias"), 6, "block") for part in ("a", "b")]
    assert len(HiFT(model, lr=1e-3, units=units).groups) == 2


def test_two_optimizers_cannot_share_parameters():
    model = tiny()
    first = HiFT(model, lr=1e-3)
    with pytest.raises(UserError, match="another block-wise optimizer"):
        HiFT(model, lr=1e-3)
    first.release()
    assert all(p.requires_grad for p in model.parameters())
    assert len(HiFT(model, lr=1e-3).groups) == 6


def test_a_dead_optimizer_leaves_no_parameter_frozen():
    """The learning-rate search's second trial on the same model must train all of it."""
    model = tiny()
    optimizer = HiFT(model, lr=1e-3)
    scheduler = optimizer.delayed_lr(total_steps=10)
    train(model, optimizer, batches(2), scheduler=scheduler)
    del optimizer, scheduler
    assert len(HiFT(model, lr=1e-3).groups) == 6


def test_frozen_weights_stay_frozen():
    model = tiny()
    model.tokens.weight.requires_grad_(False)
    optimizer = HiFT(model, lr=1e-2, frozen=["head"])
    before = copy.deepcopy(model)
    train(model, optimizer, batches(10))
    for name in ("tokens.weight", "norm.weight", "out.weight"):
        assert torch.equal(model.get_parameter(name), before.get_parameter(name))
    assert not torch.equal(model.positions.weight, before.positions.weight)


def test_add_param_group_is_refused_with_the_reason():
    with pytest.raises(UserError, match="fixed when it is built"):
        HiFT(tiny(), lr=1e-3).add_param_group({"params": [nn.Parameter(torch.zeros(2))]})


def test_a_lone_parameter_group_lr_is_visible():
    optimizer = HiFT(tiny(), lr=0.125)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert [g["lr"] for g in optimizer.param_groups] == [0.125]
    assert optimizer.defaults["weight_decay"] == 0.01  # AdamW's own default


STATES = {
    "another model": (lambda: tiny(depth=5), {}, "blocks.4.down.bias.* is not in this model"),
    "another grouping": (tiny, {"group_size": 2}, "3 groups.*this one has 6"),
    "another order": (tiny, {"order": "top2down"}, "order 'top2down'"),
    "another seed": (tiny, {"seed": 9}, "seed 9"),
    "another dwell": (tiny, {"dwell": 3}, "dwell 3"),
    "another optimizer": (tiny, {"optimizer": "sgdm"}, "saved by SGD"),
    "another width": (
        lambda: tiny(width=16),
        {},
        r'"tokens.weight" was saved with shape \[17, 16\]; it has \[17, 8\] here$',
    ),
    "another dtype": (
        lambda: tiny().to(torch.bfloat16),
        {},
        '"tokens.weight" was trained in torch.bfloat16; it is trained in torch.float32 here$',
    ),
    "masters": (tiny, {"master": "all", "low_dtype": torch.bfloat16}, "master"),
}


@pytest.mark.parametrize("case", STATES)
def test_state_that_does_not_belong_is_refused(case):
    build, settings, message = STATES[case]
    settings = {"optimizer": "adamw", "lr": 1e-3} | settings
    other, model, unasked = build(), tiny(), tiny()
    saving = HiFT(other, **settings)
    train(other, saving, batches(8))
    optimizer, free = (HiFT(m, "adamw", lr=1e-3) for m in (model, unasked))
    for m, o in ((model, optimizer), (unasked, free)):
        train(m, o, batches(8))
    with pytest.raises(UserError, match=message) as caught:
        optimizer.load_state_dict(saving.state_dict())
    assert "\n" not in str(caught.value)
    assert optimizer.position == free.position and optimizer.active == free.active
    for m, o in ((model, optimizer), (unasked, free)):
        train(m, o, batches(12))
    assert same_weights(model, unasked), "as if nobody had asked"


@pytest.mark.parametrize("name", ["adamw", "sgdm", "adagrad", "adafactor", "rmsprop"])
def test_every_optimizer_s_state_of_another_width_is_refused_at_once(name):
    """Their state takes many shapes (none, the parameter's, sums of its rows), so it cannot tell."""
    wide, model = tiny(width=16), tiny()
    saving, optimizer = HiFT(wide, name, lr=1e-3), HiFT(model, name, lr=1e-3)
    train(wide, saving, batches(8))
    with pytest.raises(UserError, match=r"shape \[17, 16\]; it has \[17, 8\]"):
        optimizer.load_state_dict(saving.state_dict())
    train(model, optimizer, batches(8))


def test_state_of_a_parameter_that_is_not_there_is_refused():
    optimizer = HiFT(tiny(), "sgdm", lr=1e-3)
    saved = optimizer.state_dict()
    saved["state"]["blocks.9.up.weight"] = {}
    with pytest.raises(UserError, match=r'"blocks.9.up.weight" is not in this model'):
        optimizer.load_state_dict(saved)


def test_a_torch_optimizer_s_state_is_refused():
    model = tiny()
    saved = torch.optim.AdamW(model.parameters()).state_dict()
    with pytest.raises(UserError, match="not the state of a block-wise optimizer"):
        HiFT(model, lr=1e-3).load_state_dict(saved)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": "linaer", "total_steps": 9}, 'did you mean "linear"'),
        ({"mode": "papers", "total_steps": 9}, 'did you mean "paper"'),
        ({"total_steps": 0}, "total_steps must be at least 1"),
        ({"total_steps": 9, "warmup_steps": -1}, "warmup_steps must be at least 0"),
    ],
)
def test_bad_schedules(settings, message):
    with pytest.raises(UserError, match=message):
        HiFT(tiny(), lr=1e-3).delayed_lr(**settings)


def test_a_scheduler_of_another_length_is_refused():
    optimizer = HiFT(tiny(), lr=1e-3)
    saved = optimizer.delayed_lr(total_steps=10).state_dict()
    with pytest.raises(UserError, match="total_steps 10, not 20"):
        optimizer.delayed_lr(total_steps=20).load_state_dict(saved)


def test_bad_plans_and_ledgers():
    units = find_units(tiny())
    with pytest.raises(UserError, match="named order"):
        make_plan(units, queue="reference", order=[0, 1, 2, 3, 4, 5])
    with pytest.raises(UserError, match="unknown order"):
        Schedule(3, "up")
    with pytest.raises(UserError, match="no closed form"):
        Ledger.of(tiny(), make_plan(units), optimizer="sparse")
