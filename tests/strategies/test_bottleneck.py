"""Bottleneck adapters against a BERT whose blocks are written out with the adapters in them."""

import copy

import pytest
import torch
from factories import make_spec, make_strategy
from torch.nn import functional

from benchmark.errors import UserError
from benchmark.models import registry

FAMILIES = ("tiny-bert", "tiny-roberta", "tiny-gpt2", "tiny-gpt-neo", "tiny-opt", "tiny-llama")
METHODS = {"houlsby": 8, "pfeiffer": 4, "parallel_adapter": 4, "mam": 4, "compacter": 8}
"""Method -> its adapters in a model of 4 blocks."""


def load(name="tiny-bert"):
    torch.manual_seed(0)
    model = registry.load_model(registry.source(name), "sequence_classification", 1).eval()
    ids = torch.randint(10, 900, (3, 9), generator=torch.Generator().manual_seed(1))
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def prepared(name, model, **options):
    torch.manual_seed(3)
    strategy = make_strategy(make_spec(strategy=name, options=options, lr=1e-2))
    return strategy.prepare(copy.deepcopy(model)).eval()


def adapters(model):
    return {n: m for n, m in model.named_modules() if n.endswith(".adapter")}


def stirred(model):
    """Random numbers in place of the adapters' zeros."""
    with torch.no_grad():
        for module in adapters(model).values():
            for parameter in module.up.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def dense(layer, inputs):
    return functional.linear(inputs, layer.weight, layer.bias)


def written_out(name, model, batch):
    """The hidden states of a BERT without dropout; `self` has no hooks, the projections' are left out."""
    hidden = model.bert.embeddings(batch["input_ids"])
    for layer in model.bert.encoder.layer:
        attended = dense(layer.attention.output.dense, layer.attention.self(hidden, None)[0])
        if name in ("houlsby", "compacter"):
            attended = attended + bottleneck(name, layer.attention.output.adapter, attended)
        hidden = layer.attention.output.LayerNorm(attended + hidden)
        inner = functional.gelu(dense(layer.intermediate.dense, hidden))
        out = dense(layer.output.dense, inner)
        if name == "parallel_adapter":
            out = out + 4.0 * bottleneck(name, layer.output.adapter, hidden)
        else:
            out = out + bottleneck(name, layer.output.adapter, out)
        hidden = layer.output.LayerNorm(out + hidden)
    return hidden


def bottleneck(name, adapter, inputs):
    activation = torch.relu if name in ("pfeiffer", "parallel_adapter") else functional.gelu
    if name == "compacter":
        return kron(adapter.up, activation(kron(adapter.down, inputs)))
    return dense(adapter.up, activation(dense(adapter.down, inputs)))


def kron(layer, inputs):
    products = (
        torch.kron(shared, left @ right)
        for shared, left, right in zip(layer.shared, layer.left, layer.right, strict=True)
    )
    return inputs @ sum(products) + layer.bias


@pytest.mark.parametrize("name", [n for n in METHODS if n != "mam"])
def test_it_is_bert_with_adapters_in_its_blocks(name):
    model, batch = load()
    ours = stirred(prepared(name, model, size=16))
    found = ours.bert(**batch).last_hidden_state
    torch.testing.assert_close(found, written_out(name, ours, batch), atol=1e-5, rtol=1e-4)
    assert (found - model.bert(**batch).last_hidden_state).abs().max() > 0.01


@pytest.mark.sparse
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_in_every_family_each_adapter_starts_without_effect_and_gets_gradients(name, family):
    model, batch = load(family)
    ours = prepared(name, model, size=16)
    assert len(adapters(ours)) == METHODS[name]
    if name != "mam":  # its prefix has an effect
        assert torch.equal(ours(**batch).logits, model(**batch).logits)
    ours(**batch).logits.square().sum().backward()
    for module in adapters(ours).values():
        assert all(p.grad is not None for p in module.parameters())
        assert any(p.grad.abs().max() > 0 for p in module.up.parameters())
    frozen = [n for n, p in ours.named_parameters() if not p.requires_grad]
    assert {n for n, p in ours.named_parameters() if p.grad is None} == set(frozen)


def test_mam_is_prefix_tuning_with_parallel_adapters():
    model, batch = load("tiny-gpt2")
    ours = prepared("mam", model, tokens=5, size=16)
    prefix = prepared("prefix", model, tokens=5)
    assert torch.equal(ours(**batch).logits, prefix(**batch).logits)
    parallel = stirred(prepared("parallel_adapter", model, size=16))
    with torch.no_grad():
        for mine, theirs in zip(adapters(ours).values(), adapters(parallel).values(), strict=True):
            mine.load_state_dict(theirs.state_dict())
        ours.transformer._forward_pre_hooks.clear()  # without its prefix
    assert torch.equal(ours(**batch).logits, parallel(**batch).logits)


def test_compacter_shares_its_factors():
    model, _ = load()
    ours = prepared("compacter", model, size=16)
    shared = {id(m.shared) for a in adapters(ours).values() for m in (a.down, a.up)}
    assert len(shared) == 1
    trains = sum(p.numel() for n, p in ours.named_parameters() if ".adapter." in n)
    each = 2 * (64 + 16) + (64 + 16)  # rank-1 factors of down and up, and the two biases
    assert trains == 4**3 + 8 * each


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("compacter", {"n": 3, "size": 9}, "n 3 does not divide the width 64"),
        ("compacter", {"n": 3}, "size 64 cannot be divided by n 3"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(name, options, said):
    with pytest.raises(UserError, match=f"strategy {name}: .*{said}"):
        prepared(name, load()[0], **options)


def test_a_family_whose_projections_have_other_names_is_refused():
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    sizes = {"dim": 16, "hidden_dim": 16, "n_layers": 2, "n_heads": 2, "vocab_size": 50}
    model = DistilBertForSequenceClassification(DistilBertConfig(**sizes))
    with pytest.raises(UserError, match="no known names: use lora with targets"):
        prepared("houlsby", model)
