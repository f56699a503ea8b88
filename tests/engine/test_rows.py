"""partition="rows:N": which rows a unit has, and that they train as in a loop that keeps whole matrices."""

import copy

import families
import pytest
import torch
from loops import language
from reference import Tiny, batches, loss_of, same_weights, tiny, train
from row_loops import LOW, both, by_hand, ranges
from test_in_backward import MODELS
from test_ledger import _follow
from test_loop_trainer import trainer_of
from torch import nn

from benchmark.engine import HiFT, Ledger, find_units
from benchmark.engine.checkpoint import load, save
from benchmark.engine.distributed import synchronise
from benchmark.engine.partitions import partition
from benchmark.errors import UserError
from benchmark.measure.live_bytes import LiveBytes
from benchmark.measure.trained import TrainedParameters


def test_every_number_of_every_family_is_in_one_unit():
    for family, class_name in dict(families.pairs()).items():
        with torch.device("meta"):
            model = families.build(family, class_name)
        layers, named = find_units(model), dict(model.named_parameters())
        whole = {n: list(range(len(named[n]))) for layer in layers for n in layer.parameters}
        for most in (300, 5000):
            units, seen = partition(model, layers, f"rows:{most}"), {}
            for unit in units:
                parts = [ranges(n, len(named[n.partition("[")[0]])) for n in unit.parameters]
                sizes = [named[name][start:stop].numel() for name, start, stop in parts]
                assert unit.numel == sum(sizes)
                alone = len(parts) == 1 and parts[0][2] - parts[0][1] == 1
                assert unit.numel <= most * 65 // 64 or alone, "as a row that is longer"
                for name, start, stop in parts:
                    seen.setdefault(name, []).extend(range(start, stop))
            assert seen == whole and list(seen) == list(whole), "each row once, as they stand"
            assert len(units) <= 2 * sum(unit.numel for unit in units) // most + 1


def test_the_rows_of_a_small_model_by_hand():
    model = tiny(depth=1)
    units = partition(model, find_units(model), "rows:100")
    assert [unit.parameters for unit in units] == [
        ("tokens.weight[0:8]",),
        ("tokens.weight[8:17]",),
        ("positions.weight", "blocks.0.norm.weight", "blocks.0.norm.bias"),
        ("blocks.0.up.weight[0:8]",),
        ("blocks.0.up.weight[8:16]", "blocks.0.up.bias"),
        ("blocks.0.down.weight[0:4]",),
        ("blocks.0.down.weight[4:8]", "blocks.0.down.bias", "norm.weight"),
        ("norm.bias", "out.weight[0:8]"),
        ("out.weight[8:17]",),
    ], "nine units of at most 100, and no nine of less than 80"
    assert [unit.numel for unit in units] == [64, 72, 64, 64, 80, 64, 80, 72, 72]
    assert units[4].name == "blocks.0.up.weight[8:16]" and units[4].kind == "block"


# --- they train as by hand -------------------------------------------------------------------------


@pytest.mark.parametrize("family", MODELS)
def test_two_sweeps_of_every_family_are_the_loop_by_hand_to_the_last_bit(family):
    """GPT-2's and OPT's heads are their embeddings, and the others' are not."""
    model = families.build(family, MODELS[family])
    for inside in ({}, {"update": "in_backward", "piece": 500}):
        ours = copy.deepcopy(model)
        optimizer = HiFT(ours, "adamw", lr=1e-2, partition="rows:500", **inside)
        groups = [group.parameters for group in optimizer.groups]
        queue = [*range(len(groups))] * 2
        assert sum(any("[" in name for name in group) for group in groups) > len(groups) / 3
        data = [families.inputs(MODELS[family], seed) for seed in queue]
        for each in data:
            ours(**each).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if not inside:
            steps = [(index, [each]) for index, each in zip(queue, data, strict=True)]
            expected = by_hand(model, groups, steps, loss=lambda m, each: m(**each).loss)
        assert same_weights(ours, expected)


SETTINGS = [
    {"order": "top2down", "checkpointing": "boundaries"},
    {"order": "random", "seed": 3, "group_size": 3, "idle": "keep"},
    {"dwell": 2, "idle": "cpu"},
    {"order": "random", "update": "in_backward", "piece": 100, "group_size": 2},
    {"weights": "stream", "group_size": 2},
    {"weights": "stream", "update": "in_backward", "idle": "keep"},
    {"order": "importance"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_every_setting_is_the_loop_by_hand(settings, tied):
    model, expected, optimizer = both(tiny(depth=2, tied=tied), batches(40), **settings)
    assert same_weights(model, expected)
    assert optimizer.position.sweep >= 1


@pytest.mark.parametrize(
    "settings",
    [
        {"always_active": ["embeddings"], "frozen": ["blocks.0"]},
        {"always_active": ["out.weight[8:17]"], "group_size": 3, "update": "in_backward"},
    ],
    ids=str,
)
def test_layers_and_rows_are_always_active_or_frozen_by_name(settings):
    def make(copies):
        return torch.optim.SGD(list(copies.values()), lr=1e-2)

    start = tiny(depth=2)
    model, expected, optimizer = both(
        copy.deepcopy(start), batches(20), optimizer="sgd", hand={"make": make}, **settings
    )
    assert same_weights(model, expected)
    [name] = settings["always_active"]
    assert all(name in group.units for group in optimizer.groups)
    kept = [torch.equal(p, q) for p, q in zip(model.parameters(), start.parameters(), strict=True)]
    assert sum(kept) == (6 if "frozen" in settings else 0)


@pytest.mark.parametrize(
    "settings", [{}, {"update": "in_backward"}, {"weights": "stream"}], ids=str
)
def test_masters_of_rows_are_the_loop_by_hand(settings):
    model, expected, _ = both(tiny(depth=1), batches(26), hand={"low": True}, **LOW, **settings)
    assert same_weights(model, expected)


@pytest.mark.parametrize("settings", [{"idle": "drop"}, {"idle": "reset", "update": "in_backward"}])
def test_dropped_state_begins_anew(settings):
    hand = {"fresh": True, "dwell": 2}
    model, expected, _ = both(tiny(depth=1), batches(44), hand=hand, dwell=2, **settings)
    assert same_weights(model, expected)


def test_masters_that_are_made_anew_are_those_of_the_ordinary_update():
    ends = []
    for more in ({}, {"update": "in_backward"}):
        model = tiny(depth=1)
        low = {"master": "active", "low_dtype": torch.bfloat16, "idle": "reset", "dwell": 2}
        train(model, HiFT(model, "adamw", lr=1e-2, partition="rows:80", **low, **more), batches(44))
        ends.append(model)
    assert same_weights(*ends)


@pytest.mark.parametrize("name", ["sgdm", "adagrad"])
def test_other_elementwise_optimizers(name):
    classes = {"sgdm": torch.optim.SGD, "adagrad": torch.optim.Adagrad}
    more = {"momentum": 0.9} if name == "sgdm" else {}
    model, hand = tiny(depth=1), tiny(depth=1)
    optimizer = HiFT(model, name, lr=1e-2, partition="rows:80")
    groups = [group.parameters for group in optimizer.groups]
    data = batches(2 * len(groups))
    train(model, optimizer, data)
    steps = [(i % len(groups), [ids]) for i, ids in enumerate(data)]

    def make(copies):
        return classes[name](list(copies.values()), lr=1e-2, **more)

    assert same_weights(model, by_hand(hand, groups, steps, make=make))


def test_accumulated_gradients_are_clipped_by_the_norm_of_the_active_rows():
    model, expected, _ = both(tiny(depth=1), batches(44), accumulate=2, clip=0.05, group_size=2)
    unclipped, *_ = both(tiny(depth=1), batches(44), accumulate=2, group_size=2)
    assert same_weights(model, expected) and not same_weights(model, unclipped)


def test_a_gradient_has_the_active_rows_alone():
    model, whole = tiny(depth=1), tiny(depth=1)
    optimizer = HiFT(model, "adamw", lr=1e-2, partition="rows:80", order=[1, 0, *range(2, 9)])
    assert optimizer.active.parameters == ("tokens.weight[8:17]",)
    for ids in batches(2):
        for each in (model, whole):
            loss_of(each, ids).backward()
        assert torch.equal(model.tokens.weight.grad, whole.tokens.weight.grad[8:17])
    found = optimizer.coming_update()
    assert found.numel == optimizer.trainable_numel == 72 and found.gradient_bytes == 4 * 72
    assert found.parameters == [model.tokens.weight] and found.rows == [(8, 17)]
    optimizer.zero_grad()
    assert model.tokens.weight.grad is None


def test_options_by_parameter_hold_for_its_rows():
    def groups_of(named):
        decayed = [p for n, p in named.items() if n == "tokens.weight"]
        rest = [p for n, p in named.items() if n != "tokens.weight"]
        parts = [{"params": decayed, "weight_decay": 0.5, "lr": 3e-2}, {"params": rest}]
        return [part for part in parts if part["params"]]

    options = [
        {"params": ["tokens.weight"], "weight_decay": 0.5, "lr": 3e-2},
        {"params": [n for n, _ in tiny(depth=1).named_parameters() if n != "tokens.weight"]},
    ]

    def make(copies):
        return torch.optim.AdamW(groups_of(copies), lr=1e-2)

    model, expected, _ = both(
        tiny(depth=1), batches(22), hand={"make": make}, param_groups=options, group_size=2
    )
    assert same_weights(model, expected)


def test_transformers_trainer_clips_and_trains_rows_as_the_plain_loop(tmp_path):
    settings = {"partition": "rows:300"}
    model, plain = language(), language()
    trained = HiFT(model, "adamw", lr=1e-2, **settings)
    optimizers = trained, trained.delayed_lr("linear", total_steps=16)
    trainer_of(model, tmp_path, 16, optimizers=optimizers, max_grad_norm=0.05).train()
    optimizer = HiFT(plain, "adamw", lr=1e-2, **settings)
    scheduler = optimizer.delayed_lr("linear", total_steps=16)
    for ids in batches(16):
        loss_of(_Logits(plain), ids).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.05)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    assert same_weights(model, plain)


class _Logits(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model(ids)["logits"]


# --- saved and counted -------------------------------------------------------------------------------


@pytest.mark.parametrize("masters", [{}, LOW], ids=["none", "all"])
def test_it_resumes_in_mid_sweep_and_within_a_step(tmp_path, masters):
    data, settings = batches(40), {"lr": 1e-2, "partition": "rows:80", "group_size": 2, **masters}
    whole, first, second = tiny(depth=1), tiny(depth=1), tiny(depth=1, seed=7)
    train(whole, HiFT(whole, **settings), data, accumulate=2)
    optimizer = HiFT(first, **settings)
    train(first, optimizer, data[:18], accumulate=2)
    (loss_of(first, data[18]) / 2).backward()
    save(tmp_path / "c.pt", first, optimizer)
    resumed = HiFT(second, idle="cpu", **settings)
    load(tmp_path / "c.pt", second, resumed)
    (loss_of(second, data[19]) / 2).backward()
    resumed.step()
    resumed.zero_grad()
    train(second, resumed, data[20:], accumulate=2)
    assert same_weights(second, whole)
    with pytest.raises(UserError, match=r"saved with \d+ groups.*same group_size, partition"):
        HiFT(tiny(depth=1), **{**settings, "partition": "rows:60"}).load_state_dict(
            resumed.state_dict()
        )


@pytest.mark.parametrize("masters", [{}, LOW], ids=["none", "all"])
@pytest.mark.parametrize("idle", ["keep", "cpu", "drop"])
def test_the_ledger_is_the_live_bytes(idle, masters):
    model = tiny(depth=1)
    optimizer = HiFT(model, "adamw", lr=1e-2, partition="rows:80", idle=idle, dwell=2, **masters)
    size = 2 if masters else 4
    ledger = Ledger.of(
        model, optimizer.plan, weight_size=size, idle=idle, master=masters.get("master", "none")
    )
    _follow(model, optimizer, ledger, steps=50)


def test_the_whole_gradient_is_there_while_it_is_made_and_the_rows_afterwards():
    model = tiny(depth=1, width=64, words=400)
    optimizer = HiFT(model, "adamw", lr=1e-2, partition="rows:2K")
    ledger = Ledger.of(model, optimizer.plan)
    [ids] = batches(1, words=400)
    loss = loss_of(model, ids)
    weights = sum(p.nbytes for p in model.parameters())
    with LiveBytes([*model.parameters(), ids]) as counter:
        loss.backward()
        del loss
    assert ledger.whole_gradient(0) == model.tokens.weight.nbytes
    assert counter.peak - weights >= ledger.whole_gradient(0) + ledger.at(0).gradients
    assert counter.live - weights - ids.nbytes == ledger.at(0).gradients
    assert ledger.at(0).gradients < 0.1 * ledger.whole_gradient(0)


def test_what_is_told_of_a_run_is_of_rows():
    model = tiny(depth=1)
    optimizer = HiFT(model, "adamw", lr=1e-2, partition="rows:80", group_size=2)
    trained, total = TrainedParameters(model), sum(p.numel() for p in model.parameters())
    trained.begin()
    for ids in batches(2 * len(optimizer.groups)):
        loss_of(model, ids).backward()
        trained.add(optimizer.coming_update())
        optimizer.step()
        optimizer.zero_grad()
    found = trained.params(len(optimizer.groups))
    sizes = [group.numel for group in optimizer.groups]
    assert found.trainable_ever == found.total == sum(sizes) == total
    assert found.trainable_peak_per_step == max(sizes)
    assert found.ratio_mean == pytest.approx(1 / len(sizes))


# --- refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"partition": "rows:0"}, "whole number of parameters from 1, as in rows:32M"),
        ({"partition": "rows:x"}, '"rows:x".*as in rows:32M'),
        ({"partition": "rows"}, "as in rows:32M"),
        ({"partition": "rows:1.5M"}, "as in rows:32M"),
        ({"partition": "row:5"}, 'did you mean "rows:5"'),
        ({"partition": "module"}, 'did you mean "modules"'),
        ({"optimizer": "adafactor"}, "Adafactor may need all of them: use adamw, .*modules"),
        ({"frozen": ["blocks.7"]}, 'frozen: no unit is named "blocks.7"'),
    ],
)
def test_refused_in_one_line(settings, said):
    with pytest.raises(UserError, match=said) as refused:
        HiFT(tiny(), **{"optimizer": "adamw", "lr": 1e-2, "partition": "rows:80", **settings})
    assert "\n" not in str(refused.value)


def _on_two(rank):
    model = Tiny()
    optimizer = HiFT(model, "adamw", lr=1e-2, partition="rows:80")
    with pytest.raises(UserError, match="works in one process"):
        synchronise(optimizer, model)
    return True


def test_several_ranks_are_refused(ranks):
    assert ranks(_on_two) == [True, True]
