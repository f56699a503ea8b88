"""The update inside the backward pass against the ordinary one, to the last bit, and what is alive in it."""

import warnings

import families
import pytest
import torch
from loops import TOTAL, by_hand, hift, language
from reference import batches, loss_of, same_weights, tiny, train
from test_loop_lightning import Module, fit
from test_loop_trainer import trainer_of
from torch import nn

from benchmark.engine import HiFT, lisa
from benchmark.engine.update import coming_update
from benchmark.errors import UserError
from benchmark.measure.live_bytes import LiveBytes

warnings.filterwarnings("ignore", module="lightning")
MIXED = {"master": "all", "low_dtype": torch.bfloat16}
INSIDE = {"update": "in_backward"}
MODELS = {
    "bert": "BertForSequenceClassification",
    "gpt2": "GPT2LMHeadModel",  # its head is its embeddings
    "opt": "OPTForCausalLM",  # too
    "llama": "LlamaForCausalLM",
}


def both(make, steps, *, data=None, start=tiny, **settings):
    """The models after `steps` of the ordinary update and of that inside the backward pass, and their
    optimizers."""
    ends = []
    for more in ({}, INSIDE):
        model = start()
        optimizer = make(model, **settings, **more)
        train(model, optimizer, data or batches(steps))
        ends += [model, optimizer]
    return ends[::2], ends[1::2]


def state_of(optimizer):
    """Every tensor of the saved state, by parameter and key, but masters, which a turn may make anew."""
    state = optimizer.state_dict()["state"]
    return {(n, k): torch.as_tensor(v) for n, e in state.items() for k, v in e.items()}


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("masters", [{}, MIXED], ids=["none", "all"])
def test_every_family_ends_at_the_same_weights_with_dropout(family, masters):
    ends = []
    for more in ({}, INSIDE):
        model = families.build(family, MODELS[family])
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.2
        optimizer = HiFT(model, "adamw", lr=1e-2, group_size=2, **masters, **more)
        start = {name: p.detach().clone() for name, p in model.named_parameters()}
        torch.manual_seed(3)
        for seed in range(2 * len(optimizer.groups)):
            model(**families.inputs(MODELS[family], seed)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        ends.append(model)
    assert same_weights(*ends)
    assert all(not torch.equal(p, start[n]) for n, p in model.named_parameters() if p.ndim > 1)


@pytest.mark.parametrize("masters", [{}, MIXED], ids=["none", "all"])
@pytest.mark.parametrize(
    "name", ["adamw", "nadam", "sgd", "sgdm", "adagrad", "adafactor", "rmsprop", "lion"]
)
def test_every_optimizer_ends_at_the_same_weights_and_state(name, masters):
    if name == "lion":
        pytest.importorskip("lion_pytorch")
    models, optimizers = both(HiFT, 8, optimizer=name, lr=1e-2, group_size=2, piece=700, **masters)
    assert same_weights(*models)
    ours, theirs = map(state_of, optimizers)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


@pytest.mark.parametrize("idle", ["keep", "cpu", "drop", "reset"])
@pytest.mark.parametrize("master", ["none", "active", "all"])
def test_idle_state_and_masters_are_kept_or_dropped_as_in_the_ordinary_update(idle, master):
    low = {} if master == "none" else {"low_dtype": torch.bfloat16}
    models, _ = both(
        HiFT, 14, lr=1e-2, dwell=2, group_size=2, idle=idle, master=master, piece=999, **low
    )
    assert same_weights(*models)


def test_units_that_are_always_active_and_draws_of_several():
    models, _ = both(lisa, 6, lr=1e-2, layers=2, switch_every=2)
    assert same_weights(*models)


@pytest.mark.parametrize("piece", [1000, 12 * 64, 12 * 5])
def test_a_piece_that_ends_inside_a_row_gives_the_same_bits(piece):
    """Gradients are made whole then; by rows they are in test_by_rows."""
    models, _ = both(HiFT, 6, start=lambda: tiny(1, width=24), lr=1e-2, piece=piece)
    assert same_weights(*models)


@pytest.mark.parametrize(
    ("optimizer", "masters", "each"),
    [("adamw", {}, 8), ("sgdm", MIXED, 8), ("adamw", MIXED, 12), ("adagrad", {}, 4)],
)
def test_no_more_than_a_piece_is_on_the_device(optimizer, masters, each):
    """Moments and masters of fp32: `each` bytes a number. A number that pieces share stays on the host."""
    model = tiny(width=24)
    ours = HiFT(model, optimizer, lr=1e-2, piece=200 * each, **masters, **INSIDE)
    sizes, step = [], ours.wrapped.step

    def watched():
        [target] = [p for group in ours.param_groups for p in group["params"]]
        state = [v for v in ours.state.get(target, {}).values() if v.ndim]
        step()
        after = [v for v in ours.state[target].values() if v.ndim]
        assert not state or {v.shape for v in state} == {v.shape for v in after}
        sizes.append(sum(v.nbytes for v in (*after, *([target] if masters else []))))

    ours.wrapped.step = watched
    train(model, ours, batches(7))
    largest = max(p.numel() for p in model.parameters())
    assert max(sizes) == 192 * each < largest * each, "whole vectors of 64 numbers"
    held = ours.state_bytes()
    assert held["device"] == {"gradients": 0, "optimizer_state": 0, "master": 0}
    assert held["host"]["optimizer_state"] > 0 and not ours.device_tensors()


def test_one_gradient_is_alive_at_a_time_and_a_tied_weight_has_one():
    model = tiny(tied=True)
    seen, alive = [], []
    names = {id(p): n for n, p in model.named_parameters()}

    def look(parameter):
        seen.append(names[id(parameter)])
        alive.append(sum(p.grad is not None for p in model.parameters()))

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(look)
    optimizer = HiFT(model, "adamw", lr=1e-2, group_size="all", **INSIDE)
    loss_of(model, batches(1)[0]).backward()
    assert set(alive) == {1}, "as it comes, and no other is left"
    assert sorted(seen) == sorted(names.values()), "each once, that of the tied matrix too"
    assert all(p.grad is None for p in model.parameters())
    update = coming_update(model, optimizer)
    assert update.numel == sum(p.numel() for p in model.parameters())
    assert update.gradient_bytes == max(p.nbytes for p in model.parameters())


@pytest.mark.parametrize("masters", [{}, MIXED], ids=["none", "all"])
def test_with_streamed_weights_it_ends_at_the_same_weights(masters):
    models, _ = both(HiFT, 8, lr=1e-2, group_size=2, weights="stream", piece=700, **masters)
    whole = tiny()
    train(whole, HiFT(whole, lr=1e-2, group_size=2, **masters), batches(8))
    assert same_weights(models[1], whole) and same_weights(*models)


def test_what_is_said_of_the_update_is_what_the_gradients_were():
    """Norms for the canary, and the rate of plain SGD."""
    model, other = tiny(), tiny()
    inside = HiFT(model, "sgd", lr=1e-2, **INSIDE)
    outside = HiFT(other, "sgd", lr=1e-2)
    for ids in batches(3):
        for each in (model, other):
            loss_of(each, ids).backward()
        found, expected = coming_update(model, inside), coming_update(other, outside)
        assert found.numel == expected.numel == inside.trainable_numel
        assert found.rate == expected.rate == 1e-2
        named = dict(zip(map(id, found.parameters), found.norms, strict=True))
        for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
            if theirs.grad is not None:
                torch.testing.assert_close(named.pop(id(ours)), theirs.grad.norm())
        assert not named
        inside.step()
        outside.step()
        outside.zero_grad()
    assert coming_update(model, inside).numel == 0, "until the next backward pass"


def test_an_order_by_importance_is_the_same():
    orders = []
    for more in ({}, INSIDE):
        model = tiny()
        optimizer = HiFT(model, "adamw", lr=1e-2, order="importance", **more)
        found = []
        for ids in batches(18):
            found.append(optimizer.active.index)
            train(model, optimizer, [ids])
        orders.append(found)
    assert orders[0] == orders[1] != [*range(6)] * 3


@pytest.mark.parametrize("before", [{}, INSIDE], ids=["from a step", "from inside"])
@pytest.mark.parametrize("masters", [{}, MIXED], ids=["none", "all"])
def test_a_checkpoint_in_mid_sweep_goes_on_in_either_update(before, masters):
    after = {} if before else INSIDE
    data = batches(14)
    whole, first, second = tiny(), tiny(), tiny(seed=7)
    train(whole, HiFT(whole, lr=1e-2, **masters), data)
    optimizer = HiFT(first, lr=1e-2, piece=700, **masters, **before)
    train(first, optimizer, data[:9])
    resumed = HiFT(second, lr=1e-2, piece=999, **masters, **after)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(optimizer.state_dict())
    train(second, resumed, data[9:])
    assert same_weights(second, whole)


def test_the_plain_loop_with_the_delayed_rate_is_the_loop_by_hand():
    model = tiny()
    optimizer, scheduler = hift(model, **INSIDE)
    train(model, optimizer, batches(TOTAL), scheduler=scheduler)
    assert same_weights(model, by_hand(batches(TOTAL))[0])


def test_lightning_is_the_loop_by_hand():
    expected, losses = by_hand(batches(TOTAL))
    module = Module(**INSIDE)
    fit(module, batches(TOTAL))
    assert same_weights(module.model, expected) and module.losses == losses


def test_the_trainer_of_transformers_is_the_loop_by_hand(tmp_path):
    model = language()
    with warnings.catch_warnings(record=True) as told:
        trainer_of(model, tmp_path, TOTAL, optimizers=hift(model, **INSIDE)).train()
    assert same_weights(model, by_hand(batches(TOTAL))[0])
    assert not [each for each in told if "clips" in str(each.message)]


def test_a_trainer_that_clips_is_told_once_that_it_clips_nothing(tmp_path):
    """Its default, max_grad_norm=1.0, is above these gradients' norm; 0.05 is below."""
    model, module = language(), Module(**INSIDE)
    with pytest.warns(UserWarning, match="clips nothing") as told:
        optimizers = hift(model, **INSIDE)
        trainer_of(model, tmp_path, TOTAL, optimizers=optimizers, max_grad_norm=0.05).train()
        fit(module, batches(TOTAL), gradient_clip_val=0.05)
    said = [str(each.message) for each in told if "clips nothing" in str(each.message)]
    assert [s.partition(", so ")[2] for s in said] == [
        'max_grad_norm=0.05 clips nothing: set max_grad_norm=0, or clip with update="step"',
        'gradient_clip_val=0.05 clips nothing: set gradient_clip_val=None, or clip with update="step"',
    ]
    expected, _ = by_hand(batches(TOTAL))
    assert same_weights(model, expected) and same_weights(module.model, expected)


def test_host_memory_is_counted_apart():
    """Without an accelerator too: a step counts pieces and gradients, not the state that waits."""
    model = tiny(width=64)
    optimizer = HiFT(model, "adamw", lr=1e-2, piece=1024, group_size="all", **INSIDE)
    weights = sum(p.nbytes for p in model.parameters())
    [ids] = batches(1)
    for _ in range(2):  # the first makes the state
        with LiveBytes([*model.parameters(), ids]) as counter:
            train(model, optimizer, [ids])
        assert counter.live < weights + 4096
        assert optimizer.state_bytes()["host"]["optimizer_state"] > 2 * weights


def test_a_second_gradient_before_the_step_is_refused_and_changes_nothing():
    model, once = tiny(), tiny()
    [ids] = batches(1)
    twice, single = (HiFT(m, "sgd", lr=1e-2, **INSIDE) for m in (model, once))
    for each in (model, once):
        loss_of(each, ids).backward()
    with pytest.raises(UserError, match="raise the batch size") as caught:
        loss_of(model, ids).backward()
    assert "\n" not in str(caught.value) and same_weights(model, once)
    assert twice.position == single.position


def test_a_grad_scaler_is_refused():
    model = tiny()
    optimizer = HiFT(model, "adamw", lr=1e-2, **INSIDE)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    scaler.scale(loss_of(model, batches(1)[0])).backward()
    with pytest.raises(UserError, match="train in bfloat16"):
        scaler.step(optimizer)


def _step_on_two(rank):
    model = tiny()
    optimizer = HiFT(model, "adamw", lr=1e-2, **INSIDE)
    with pytest.raises(UserError, match="works with one rank, not 2"):
        loss_of(model, batches(1)[0]).backward()
    return same_weights(model, tiny()) and optimizer.position.step == 0


def test_several_ranks_are_refused_before_a_weight_changes(ranks):
    assert ranks(_step_on_two) == [True, True]


def test_a_released_model_and_one_whose_optimizer_is_gone_keep_their_gradients():
    for end in (lambda o: o.release(), lambda o: None):
        model = tiny()
        optimizer = HiFT(model, "adamw", lr=1e-2, **INSIDE)
        end(optimizer)
        del optimizer
        plain = HiFT(model, "adamw", lr=1e-2)
        loss_of(model, batches(1)[0]).backward()
        assert all(model.get_parameter(n).grad is not None for n in plain.active.parameters)
        plain.release()
