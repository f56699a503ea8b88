"""BitFit, FT-top-n, frozen lower layers, layer-wise rate decay and re-initialised top layers: by name, and
against loops written out."""

import copy

import pytest
import torch
from factories import make_spec, make_strategy

from benchmark.errors import UserError
from benchmark.models import registry

BLOCK = {"tiny-bert": "bert.encoder.layer.{}.", "tiny-gpt2": "transformer.h.{}."}


def load(name, head="sequence_classification"):
    torch.manual_seed(0)
    model = registry.load_model(registry.source(name), head, 1).eval()
    ids = torch.randint(10, 900, (4, 12), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return model, batch | {"labels": torch.tensor([0, 1, 1, 0])}


def prepared(name, model, options=None, **settings):
    spec = make_spec(strategy=name, options=options or {}, lr=1e-2, **settings)
    strategy = make_strategy(spec)
    return strategy, strategy.prepare(copy.deepcopy(model))


def trainable(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def stepped(strategy, model, batch, steps=5):
    optimizer, scheduler = strategy.optimizer(model, steps)
    for _ in range(steps):
        strategy.loss(model, lambda: model(**batch).loss).backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return dict(model.named_parameters())


def test_bitfit_moves_biases_and_the_new_head_alone():
    model, batch = load("tiny-bert")
    before = dict(copy.deepcopy(model).named_parameters())
    after = stepped(*prepared("bitfit", model), batch)
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert {n for n in moved if not n.startswith("classifier.")} == {
        n for n in before if n.endswith(".bias") and n.startswith("bert.")
    }
    assert {n for n in moved if n.startswith("classifier.")} == {
        "classifier.weight",
        "classifier.bias",
    }


def test_bitfit_takes_some_of_the_biases_by_the_end_of_their_names():
    model, _ = load("tiny-bert", "masked_lm")
    _, ours = prepared("bitfit", model, {"only": ["query.bias", "intermediate.dense.bias"]})
    assert len(trainable(ours)) == 2 * 4 and all(n.startswith("bert.") for n in trainable(ours))


@pytest.mark.parametrize("twin", BLOCK)
def test_top_n_trains_the_last_blocks_and_the_head(twin):
    model, _ = load(twin)
    _, ours = prepared("top_n", model, {"blocks": 2})
    below = [BLOCK[twin].format(i) for i in (0, 1)]
    embeddings = ("bert.embeddings.", "transformer.wte.", "transformer.wpe.")
    assert trainable(ours) == {
        n for n, _ in model.named_parameters() if not n.startswith((*below, *embeddings))
    }


@pytest.mark.parametrize("twin", BLOCK)
def test_freeze_lower_freezes_the_embeddings_first(twin):
    model, _ = load(twin)
    embeddings = ("bert.embeddings.", "transformer.wte.", "transformer.wpe.")
    names = {n for n, _ in model.named_parameters()}
    for units, below in ((1, ()), (3, tuple(BLOCK[twin].format(i) for i in (0, 1)))):
        _, ours = prepared("freeze_lower", model, {"units": units})
        assert trainable(ours) == {n for n in names if not n.startswith((*embeddings, *below))}


def test_a_head_tied_to_the_embeddings_is_frozen_with_them():
    model, _ = load("tiny-gpt2", "causal_lm")
    _, ours = prepared("freeze_lower", model)
    assert not ours.lm_head.weight.requires_grad and ours.transformer.ln_f.weight.requires_grad


@pytest.mark.parametrize("twin", BLOCK)
def test_llrd_is_an_optimizer_for_each_unit_with_its_own_rate(twin):
    model, batch = load(twin)
    steps, decay, weight_decay = 5, 0.5, 0.1
    after = stepped(*prepared("llrd", model, {"decay": decay}, weight_decay=weight_decay), batch)
    theirs, optimizers = copy.deepcopy(model), []
    for name, parameter in theirs.named_parameters():
        height = next((i for i in range(4) if BLOCK[twin].format(i) in name), None)
        is_embedding = any(part in name for part in ("embeddings", "wte", "wpe"))
        depth = 5 if is_embedding else 0 if height is None else 4 - height
        decayed = weight_decay if parameter.ndim > 1 else 0.0
        optimizers.append(
            torch.optim.AdamW([parameter], lr=1e-2 * decay**depth, weight_decay=decayed)
        )
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 - step / steps) for o in optimizers
    ]
    for _ in range(steps):
        theirs(**batch).loss.backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    for name, value in theirs.named_parameters():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_llrd_without_decay_is_full_fine_tuning():
    model, batch = load("tiny-bert")
    ours = stepped(*prepared("llrd", model, {"decay": 1.0}), batch)
    full = stepped(*prepared("full", model), batch)
    assert all(torch.equal(ours[name], value) for name, value in full.items())


@pytest.mark.parametrize("twin", BLOCK)
def test_reinit_top_makes_the_last_blocks_new_and_leaves_the_rest(twin):
    model, _ = load(twin)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(3.0)  # no loaded value could be taken for a new one
    _, ours = prepared("reinit_top", model, {"blocks": 2})
    anew = (*(BLOCK[twin].format(i) for i in (2, 3)), "bert.pooler.")
    before = dict(model.named_parameters())
    for name, value in ours.named_parameters():
        if not name.startswith(anew):
            assert torch.equal(value, before[name]), name
        elif value.ndim > 1:
            assert abs(value.mean()) < 2e-3 and 0.003 < value.std() < 0.021, name
        else:
            norm = any(part in name for part in ("LayerNorm.weight", "ln_1.weight", "ln_2.weight"))
            assert torch.equal(value, torch.full_like(value, float(norm))), name
    assert trainable(ours) == set(before)


@pytest.mark.parametrize(
    ("name", "twin", "options", "said"),
    [
        ("bitfit", "tiny-llama", {}, "LlamaForSequenceClassification has no bias"),
        ("bitfit", "tiny-bert", {"only": ["no.such"]}, "no bias by the name no.such"),
        ("top_n", "tiny-bert", {"blocks": 5}, "blocks 5 is more than the 4"),
        ("freeze_lower", "tiny-bert", {"units": 6}, "units 6 leaves none of the model's 6"),
        ("reinit_top", "tiny-bert", {"blocks": 5}, "blocks 5 is more than the 4"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_in_one_line(name, twin, options, said):
    with pytest.raises(UserError, match=f"strategy {name}: .*{said}"):
        prepared(name, load(twin)[0], options)
