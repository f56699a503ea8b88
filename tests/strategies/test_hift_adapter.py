"""HiFT of an adapter: the groups are of the units in which the adapter trains something."""

import copy

import pytest
import torch
from factories import make_spec, make_strategy

from benchmark.errors import Unsupported, UserError
from benchmark.models import registry


def load(name="tiny-bert", head="sequence_classification"):
    torch.manual_seed(0)
    model = registry.load_model(registry.source(name), head, 1).eval()
    ids = torch.randint(10, 900, (4, 12), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return model, batch | {"labels": torch.tensor([0, 1, 1, 0])}


def prepared(model, **options):
    strategy = make_strategy(make_spec(strategy="hift", options=options, lr=1e-2))
    torch.manual_seed(3)
    return strategy, strategy.prepare(copy.deepcopy(model))


@pytest.mark.parametrize(
    ("adapter", "twin", "groups"),
    [
        ("lora", "tiny-bert", 5),  # four blocks and the head
        ("bitfit", "tiny-bert", 6),
        ("ia3", "tiny-gpt2", 5),
        ("prompt", "tiny-gpt2", 2),  # the vectors are of the embeddings
        ("top_n", "tiny-gpt2", 3),
    ],
)
def test_every_sweep_trains_what_the_adapter_trains_one_unit_a_step(adapter, twin, groups):
    model, batch = load(twin)
    strategy, wrapped = prepared(model, adapter=adapter)
    alone = make_strategy(make_spec(strategy=adapter)).prepare(copy.deepcopy(model))
    expected = {n for n, p in alone.named_parameters() if p.requires_grad}
    optimizer, scheduler = strategy.optimizer(wrapped, 2 * groups)
    assert len(optimizer.groups) == groups
    before = {n: p.detach().clone() for n, p in wrapped.named_parameters()}
    trained = []
    for _ in range(groups):
        wrapped(**batch).loss.backward()
        trained += [n for n, p in wrapped.named_parameters() if p.grad is not None]
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    assert sorted(trained) == sorted(expected)
    moved = {n for n, p in wrapped.named_parameters() if not torch.equal(p, before[n])}
    assert moved <= expected and moved


def test_lora_with_all_units_in_one_group_is_lora():
    model, batch = load()
    strategy, ours = prepared(model, adapter="lora", adapter_options={"r": 4}, group_size=5)
    lora = make_strategy(make_spec(strategy="lora", options={"r": 4}, lr=1e-2))
    torch.manual_seed(3)
    theirs = lora.prepare(copy.deepcopy(model))
    for method, wrapped in ((strategy, ours), (lora, theirs)):
        optimizer, scheduler = method.optimizer(wrapped, 6)
        for _ in range(3):
            wrapped(**batch).loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    after = dict(theirs.named_parameters())
    for name, value in ours.named_parameters():
        assert torch.equal(value, after[name]), name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"adapter": "lorra"}, "unknown strategy 'lorra'.*lora"),
        ({"adapter": "none"}, "adapter: none: it must be"),
        ({"adapter": "hift"}, "adapter: hift: it must be"),
        ({"adapter": "adalora"}, "adapter: adalora: it must be .* usual ones, as lora"),
        ({"adapter": "llrd"}, "adapter: llrd: it must be"),
        ({"adapter": "lora", "adapter_options": {"rank": 2}}, "lora has no option rank"),
        ({"adapter_options": {"r": 2}}, "there is no adapter"),
    ],
)
def test_an_adapter_that_cannot_take_turns_is_refused_before_a_model_loads(options, said):
    with pytest.raises(UserError, match=said):
        make_strategy(make_spec(strategy="hift", options=options))


@pytest.mark.parametrize(
    ("adapter", "settings"),
    [("lora", {"precision": "mixed_hi"}), ("prefix", {"checkpointing": True})],
)
def test_what_the_adapter_refuses_is_refused(adapter, settings):
    with pytest.raises(Unsupported, match=f"strategy hift: adapter: strategy {adapter} "):
        make_strategy(make_spec(strategy="hift", options={"adapter": adapter}, **settings))


def test_specs_without_an_adapter_keep_their_hash():
    """The hash that the spec had before there were adapters; it leaves out what is not said."""
    spec = make_spec(strategy="hift", options={"group_size": 2}, model="minilm")
    assert spec.hash == HASH


HASH = "50af8e1e6abc"
