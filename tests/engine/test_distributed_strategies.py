"""Each method that says it works with several devices, or with a model that they divide: two ranks end where
one process does."""

import pytest
import torch
import torch.distributed as dist
from factories import make_bert, make_spec, make_strategy
from ranks import weights

from benchmark.errors import Unsupported
from benchmark.measure.trained import TrainedParameters
from benchmark.models.checkpointing import recompute_activations
from benchmark.optimizers import ELEMENTWISE
from benchmark.run.ranks import Ranks
from benchmark.run.shards import Shards
from benchmark.strategies import STRATEGIES, strategy_class

KINDS = {name: strategy_class(name) for name in STRATEGIES if strategy_class(name).trains}
WORKING = [name for name, kind in KINDS.items() if "data_parallel" not in kind.refuses]
DIVIDED = [name for name in WORKING if "sharded" not in KINDS[name].refuses]
STEPS = 5
OPTIONS = {"hift": [{}, {"order": "importance"}, {"adapter": "lora"}]}
"""More than the defaults, where these reach other code."""


def spec_of(name, **fields):
    usual = {"lr": 1e-3, "epochs": None, "max_steps": STEPS, "schedule": "constant"}
    return make_spec(strategy=name, **usual, **{"devices": 2, **fields})


def _bert():
    """Without dropout, and with rows that two ranks cannot share evenly."""
    return make_bert(vocab_size=63, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def _train(rank, of, name, options, dtype, **fields):
    """The weights after STEPS steps on this rank's half of each batch, and what a record says has trained."""
    spec = spec_of(name, options=options, **fields)
    strategy = make_strategy(spec)
    model = _bert()
    if spec.checkpointing and not strategy.recomputes:
        recompute_activations(model)
    model = strategy.prepared(model).train().to(dtype)
    if spec.sharded and of > 1:
        Shards(model, of, torch.device("cpu"))
    optimizer, scheduler = strategy.optimizer(model, STEPS)
    after_backward = Ranks(rank, of).averaging(optimizer, model)
    trained = TrainedParameters(model)
    trained.begin()
    draws = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        whole = {
            "input_ids": torch.randint(4, 63, (4, 8), generator=draws),
            "attention_mask": torch.ones(4, 8, dtype=torch.long),
            "labels": torch.randint(2, (4,), generator=draws),
        }
        batch = {key: tensor[rank::of] for key, tensor in whole.items()}
        strategy.loss(model, lambda batch=batch: model(**batch).loss).backward()
        after_backward()
        trained.add(strategy.coming_update(model, optimizer))
        if spec.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), spec.clip)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    trained.end(strategy.set_back(model))
    params = trained.params(1)
    counts = params.total, params.trainable_ever, params.trainable_peak_per_step, params.ratio_mean
    return weights(model), counts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"), [(name, each) for name in WORKING for each in OPTIONS.get(name, [{}])]
)
def test_two_ranks_are_one_process(ranks, name, options):
    """In 64 bits, so that nothing but the order of sums differs; two methods know 32 alone."""
    dtype, most = torch.float64, 1e-8
    try:
        expected, counts = _train(0, 1, name, options, dtype)
    except RuntimeError as error:
        assert "Double" in str(error)
        dtype, most = torch.float32, 2e-5
        expected, counts = _train(0, 1, name, options, dtype)
    for theirs, also in ranks(_train, 2, name, options, dtype):
        assert expected.keys() == theirs.keys() and counts == also
        assert max((expected[n] - theirs[n]).abs().max().item() for n in expected) < most


def _sharded(rank, name, options, dtype, fields):
    return _train(rank, 2, name, options, dtype, sharded=True, **fields)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        *((name, {}) for name in DIVIDED),
        *(("full", {"optimizer": optimizer}) for optimizer in ELEMENTWISE),
        *((name, {"checkpointing": True, "clip": 0.1}) for name in ("full", "hift", "lora")),
        ("hift", {"options": {"adapter": "lora"}}),
        ("hift", {"options": {"partition": "modules", "dwell": 2, "idle": "drop"}}),
    ],
    ids=str,
)
def test_two_ranks_that_divide_the_model_are_one_process(ranks, name, fields):
    """But for the biases of the keys, to which a softmax is blind: Lion takes the sign of their gradients,
    which are rounding."""
    fields = dict(fields)
    options = fields.pop("options", {})
    expected, counts = _train(0, 1, name, options, torch.float64, **fields)
    compared = [name for name in expected if not name.endswith("key.bias")]
    for theirs, also in ranks(_sharded, name, options, torch.float64, fields):
        assert expected.keys() == theirs.keys() and counts == also
        assert max((expected[n] - theirs[n]).abs().max().item() for n in compared) < 1e-8


def _there_and_back(rank, name):
    """What one rank has of a model after it was divided and made whole, and what it was before."""
    strategy = make_strategy(spec_of(name))
    torch.manual_seed(0)
    model = strategy.prepared(_bert()).eval()
    before, kinds = weights(model), list(map(type, model.modules()))
    attributes = [set(vars(module)) for module in model.modules()]
    shards = Shards(model, 2, torch.device("cpu"))
    parts = sum(p.to_local().numel() for p in model.parameters())
    ids = torch.randint(4, 63, (4, 8))
    divided = model(input_ids=ids).logits
    shards.gather()
    dist.destroy_process_group()
    assert kinds == list(map(type, model.modules()))
    assert attributes == [set(vars(module)) for module in model.modules()]
    numel = sum(p.numel() for p in model.parameters())
    if rank == 0:
        assert torch.equal(divided, model(input_ids=ids).logits)
        assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    return numel, parts, [p.requires_grad for p in model.parameters()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "lora"])
def test_a_divided_model_is_made_whole_on_the_first_rank(ranks, name):
    (whole, a, trained), (none, b, also) = ranks(_there_and_back, name)
    assert none == 0 and a + b == whole and 0.45 < b / whole < 0.5
    assert trained == also and any(trained)


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
