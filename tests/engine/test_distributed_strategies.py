"""Each method that says it works with several devices: two ranks end where one process does."""

import pytest
import torch
from factories import make_bert, make_spec, make_strategy
from ranks import weights

from benchmark.errors import Unsupported
from benchmark.run.ranks import Ranks
from benchmark.strategies import STRATEGIES, strategy_class

KINDS = {name: strategy_class(name) for name in STRATEGIES if strategy_class(name).trains}
WORKING = [name for name, kind in KINDS.items() if "data_parallel" not in kind.refuses]
STEPS = 5
OPTIONS = {"hift": [{}, {"order": "importance"}, {"adapter": "lora"}]}
"""More than the defaults, where these reach other code."""


def spec_of(name, **fields):
    usual = {"lr": 1e-3, "epochs": None, "max_steps": STEPS, "schedule": "constant"}
    return make_spec(strategy=name, **usual, **{"devices": 2, **fields})


def _train(rank, of, name, options, dtype):
    """The weights after STEPS steps on this rank's half of each batch."""
    strategy = make_strategy(spec_of(name, options=options))
    model = make_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = strategy.prepared(model).train().to(dtype)
    optimizer, scheduler = strategy.optimizer(model, STEPS)
    after_backward = Ranks(rank, of).averaging(optimizer, model)
    draws = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        whole = {
            "input_ids": torch.randint(4, 64, (4, 8), generator=draws),
            "attention_mask": torch.ones(4, 8, dtype=torch.long),
            "labels": torch.randint(2, (4,), generator=draws),
        }
        batch = {key: tensor[rank::of] for key, tensor in whole.items()}
        strategy.loss(model, lambda batch=batch: model(**batch).loss).backward()
        after_backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return weights(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"), [(name, each) for name in WORKING for each in OPTIONS.get(name, [{}])]
)
def test_two_ranks_are_one_process(ranks, name, options):
    """In 64 bits, so that nothing but the order of sums differs; two methods know 32 alone."""
    dtype, most = torch.float64, 1e-8
    try:
        expected = _train(0, 1, name, options, dtype)
    except RuntimeError as error:
        assert "Double" in str(error)
        dtype, most = torch.float32, 2e-5
        expected = _train(0, 1, name, options, dtype)
    for theirs in ranks(_train, 2, name, options, dtype):
        assert expected.keys() == theirs.keys()
        assert max((expected[n] - theirs[n]).abs().max().item() for n in expected) < most


@pytest.mark.parametrize("name", sorted(set(KINDS) - set(WORKING)))
def test_a_method_that_does_not_work_with_them_is_refused(name):
    with pytest.raises(Unsupported, match=f"strategy {name} does not work with data_parallel: "):
        make_strategy(spec_of(name))


@pytest.mark.parametrize(
    "options",
    [{"weights": "stream"}, {"update": "in_backward"}, {"partition": "rows:500K"}],
    ids=str,
)
def test_what_works_in_one_process_alone_is_refused_with_them(options):
    with pytest.raises(Unsupported, match="strategy hift does not work with data_parallel: "):
        make_strategy(spec_of("hift", options=options))
    make_strategy(spec_of("hift", options=options, devices=1))


def test_a_batch_of_fewer_examples_than_devices_is_refused():
    with pytest.raises(ValueError, match="devices: 2 are more than the 1 examples of a batch"):
        spec_of("full", batch_size=1)
