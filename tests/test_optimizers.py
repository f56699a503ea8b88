"""The table of optimizers against the classes themselves."""

import importlib
import inspect

import pytest
import torch
from factories import make_spec, make_strategy
from pydantic import ValidationError

from benchmark.errors import UserError
from benchmark.optimizers import OPTIMIZERS, SHARED, check_options
from benchmark.strategies import STRATEGIES, strategy_class

SWITCHES = {"params", "foreach", "maximize", "capturable", "differentiable", *SHARED}
"""What every torch optimizer takes, and what changes how it computes and not what."""
LEFT_OUT = {("Adam", "decoupled_weight_decay"), ("Muon", "adjust_lr_fn")}
"""The first is AdamW, the second is a name and no number."""


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_options_are_those_of_the_class_signature(name):
    entry = OPTIMIZERS[name]
    module = pytest.importorskip(entry.modules[0])
    takes = inspect.signature(getattr(module, entry.class_name)).parameters
    assert set(entry.options) | entry.implied.keys() <= takes.keys()
    if entry.modules == ("torch.optim",):
        left_out = {option for of, option in LEFT_OUT if of == entry.class_name}
        assert set(entry.options) == takes.keys() - SWITCHES - left_out
        assert entry.fused == ("fused" in takes)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("adamw", {"beta": (0.9, 0.95)}, r'adamw has no option beta \(did you mean "betas"\?\)$'),
        ("sgd", {"betas": (0.9, 0.95)}, "sgd has no option betas .valid: dampening, momentum"),
        ("adamw", {"lr": 1.0}, "lr is a setting of the training"),
        ("adamq", {}, 'did you mean "adam'),
    ],
)
def test_an_option_that_is_not_there_is_one_line(name, options, said):
    with pytest.raises(UserError, match=said):
        check_options(name, options)


TAKING_ONE = [
    name
    for name in STRATEGIES
    if strategy_class(name).trains and strategy_class(name).optimizers != ()
]
"""The strategies that train with the optimizer of the settings."""


@pytest.mark.parametrize("strategy", TAKING_ONE)
def test_they_reach_the_optimizer_of_every_strategy(strategy):
    """Against torch's own class, called with them: the values that the parameter groups end up with."""
    import transformers

    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 32}
    config = transformers.BertConfig(**sizes, num_attention_heads=2)
    options = {"betas": [0.8, 0.95], "eps": "1e-6", "amsgrad": True}
    spec = make_spec(strategy=strategy, optimizer_options=options)
    made = make_strategy(spec)
    made.check()
    model = made.prepare(transformers.BertForSequenceClassification(config))
    optimizer, _ = made.optimizer(model, 10)
    theirs = torch.optim.AdamW([torch.zeros(1)], betas=(0.8, 0.95), eps=1e-6, amsgrad=True)
    for group in optimizer.param_groups:
        for key in options:
            assert group[key] == theirs.param_groups[0][key]


def test_a_momentum_of_ones_own_takes_the_place_of_the_one_that_the_name_implies():
    optimizer, _ = make_strategy(
        make_spec(optimizer="sgdm", optimizer_options={"momentum": 0.5})
    ).optimizer(torch.nn.Linear(2, 2), 10)
    assert [group["momentum"] for group in optimizer.param_groups] == [0.5, 0.5]


def test_values_that_the_class_refuses_are_one_line_before_there_is_a_model():
    strategy = make_strategy(make_spec(optimizer_options={"betas": [2.0, 0.95]}))
    with pytest.raises(UserError, match=r"^AdamW: Invalid beta parameter at index 0: 2.0$"):
        strategy.check()


def test_they_are_part_of_the_hash_and_none_changes_it():
    plain = make_spec()
    assert make_spec(optimizer_options={}).hash == plain.hash
    assert make_spec(optimizer_options={"eps": 1e-6}).hash != plain.hash
    with pytest.raises(ValidationError, match="no option epsilon"):
        make_spec(optimizer_options={"epsilon": 1e-6})
    with pytest.raises(ValidationError):
        make_spec(optimizer_options={"eps": float("nan")})


def test_every_name_is_a_module_and_a_class():
    for entry in OPTIMIZERS.values():
        if entry.modules[0] == "torch.optim":
            assert hasattr(importlib.import_module("torch.optim"), entry.class_name)
