"""What a strategy says before there is a model (options, card, refusals), and the rates of a training.

All of it is read from the class, so that a new strategy is tested by its line in STRATEGIES.
"""

import copy
import re

import pytest
import torch
import transformers
from factories import make_spec, make_strategy
from pydantic import ValidationError

from benchmark.errors import Unsupported, UserError
from benchmark.optimizers import OPTIMIZERS
from benchmark.strategies import STRATEGIES, options_of, strategy_class
from benchmark.strategies.compatibility import FEATURES, PRECISIONS


@pytest.mark.parametrize("name", STRATEGIES)
def test_options_are_strict_and_their_defaults_need_no_mention(name):
    options = options_of(name)
    assert options().model_dump(exclude_defaults=True) == {}
    with pytest.raises(ValidationError, match="Extra inputs"):
        options(invented=1)
    with pytest.raises(ValidationError, match="frozen"):
        options().invented = 1


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("hift", {"group_size": 0}),
        ("hift", {"group_size": True}),
        ("hift", {"order": "down2up"}),
        ("hift", {"dwell": 0}),
        ("hift", {"idle": "gpu"}),
        ("lora", {"r": 0}),
        ("lora", {"alpha": float("inf")}),
        ("lora", {"alpha": float("nan")}),
        ("lora", {"dropout": 1.0}),
        ("full", {"group_size": 2}),
        ("badam", {"order": "random"}),
        ("lisa", {"layers": 0}),
        ("hft", {"dwell": 0}),
        ("misa", {"share": 0.0}),
        ("misa", {"share": 1.5}),
        ("misa", {"eta": -1.0}),
        ("misa", {"smoothing": 1.0}),
    ],
)
def test_wrong_options_are_refused(name, wrong):
    with pytest.raises(ValidationError):
        options_of(name)(**wrong)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_card_and_the_line_of_the_compatibility_table_are_filled(name):
    kind = strategy_class(name)
    assert all(vars(kind.card).values())
    assert set(kind.refuses) <= set(FEATURES) and all(kind.refuses.values())
    assert set(kind.precisions) <= set(PRECISIONS)
    assert set(kind.optimizers or ()) <= set(OPTIMIZERS)


ASKED = {
    "accumulate": {"accumulate": 2},
    "clip": {"clip": 1.0},
    "checkpointing": {"checkpointing": True},
}


@pytest.mark.parametrize("feature", ASKED)
@pytest.mark.parametrize("name", [n for n in STRATEGIES if strategy_class(n).trains])
def test_a_refused_setting_is_refused_with_its_reason(name, feature):
    spec = make_spec(strategy=name, **ASKED[feature])
    reason = strategy_class(name).refuses.get(feature)
    if reason is None:
        make_strategy(spec)
        return
    with pytest.raises(
        Unsupported, match=re.escape(f"strategy {name} does not work with {feature}: {reason}")
    ):
        make_strategy(spec)


def test_every_line_of_strategies_is_a_class_named_by_one_file():
    for name, place in STRATEGIES.items():
        module, _, attribute = place.partition(":")
        assert (
            module == f"benchmark.strategies.{name}" and strategy_class(name).__name__ == attribute
        )
        assert strategy_class(name).__doc__


@pytest.mark.parametrize(
    "name", [name for name in STRATEGIES if "mixed_hi" not in strategy_class(name).precisions]
)
def test_mixed_hi_is_for_what_has_master_weights(name):
    with pytest.raises(Unsupported, match=f"strategy {name} has no precision mixed_hi"):
        make_strategy(make_spec(strategy=name, precision="mixed_hi"))


def test_more_units_to_a_group_than_there_are_is_refused_by_name(loaded):
    name, model, _ = loaded
    strategy = make_strategy(make_spec(strategy="hift", options={"group_size": 7}, model=name))
    with pytest.raises(UserError, match="group_size 7 is more than the 6 units"):
        strategy.optimizer(copy.deepcopy(model), 12)


def rates_of(optimizer, scheduler, steps):
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("shape", ["linear", "cosine", "constant"])
def test_the_rate_of_full_is_transformers_schedule(loaded, shape):
    name, model, _ = loaded
    spec = make_spec(model=name, lr=1.0, epochs=None, max_steps=6, schedule=shape)
    ours = make_strategy(spec).optimizer(copy.deepcopy(model), 6)
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = transformers.get_scheduler(shape, theirs, 0, 6)
    assert rates_of(*ours, 6) == pytest.approx(rates_of(theirs, schedule, 6))


@pytest.mark.parametrize(
    ("warmup", "rates"),
    [(0.25, [1 / 2, 1, 2 / 3, 1 / 3]), (0.3, [1 / 3, 2 / 3, 1, 1 / 2])],  # rounded up to 1 and 2
)
def test_warm_up_is_a_share_of_the_steps_and_wastes_none_at_rate_0(loaded, warmup, rates):
    name, model, _ = loaded
    spec = make_spec(model=name, lr=1.0, epochs=None, max_steps=4, warmup=warmup)
    ours = make_strategy(spec).optimizer(copy.deepcopy(model), 4)
    assert rates_of(*ours, 4) == pytest.approx(rates)
