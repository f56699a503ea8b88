"""Masked thought fine-tuning token by token: what the model reads, and what it is asked to predict."""

import pytest
import torch
from factories import make_spec, make_strategy

from benchmark.errors import Unsupported
from benchmark.models import registry
from benchmark.run import recipe
from tasks.base import adapter, load

STEPS = 10
TASK = adapter(load("generation/gsm8k"))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return registry.load_model(registry.source("tiny-gpt2"), "causal_lm", 1).eval()


@pytest.fixture(scope="module")
def pad(model):
    return model.config.pad_token_id


def started(model, **options):
    """The strategy before its first step, and its scheduler."""
    strategy = make_strategy(make_spec(strategy="mft", lr=1e-3, options=options))
    optimizer, scheduler = strategy.optimizer(strategy.prepare(model), STEPS)
    return strategy, optimizer, scheduler


def batch_of(rows=64, length=50):
    ids = torch.randint(10, 900, (rows, length), generator=torch.Generator().manual_seed(1))
    lengths = torch.arange(rows) % (length - 2) + 1
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "answer_lengths": lengths}


def test_only_tokens_of_the_answer_are_masked_and_their_share_is_the_ratio(model, pad):
    strategy, _, _ = started(model, ratio=0.4, rise=0.0)
    batch = batch_of(rows=500)
    seen = strategy.batch(batch)["seen_ids"]
    hidden = 0
    for read, ids, length in zip(
        seen.tolist(), batch["input_ids"].tolist(), batch["answer_lengths"].tolist(), strict=True
    ):
        assert read[:-length] == ids[:-length]
        assert all(a in (pad, b) for a, b in zip(read, ids, strict=True))
        hidden += sum(a != b for a, b in zip(read, ids, strict=True))
    total = int(batch["answer_lengths"].sum())
    assert abs(hidden / total - 0.4) < 4 * (0.4 * 0.6 / total) ** 0.5
    assert torch.equal(batch["input_ids"], batch_of(rows=500)["input_ids"])


def test_the_ratio_rises_with_the_optimizer_steps_to_its_share_of_the_training(model, pad):
    strategy, optimizer, scheduler = started(model, ratio=1.0, rise=0.5)
    batch, shares = batch_of(), []
    for _ in range(STEPS):
        seen = strategy.batch(batch)["seen_ids"]
        shares.append(float((seen == pad).sum() / batch["answer_lengths"].sum()))
        optimizer.step()
        scheduler.step()
    assert shares == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 6, abs=0.05)
    assert shares[4:] == [1.0] * 6


def test_in_place_of_some_masked_tokens_stand_random_ones(model, pad):
    strategy, _, _ = started(model, ratio=1.0, rise=0.0, replace_rate=0.75)
    batch = batch_of(rows=500)
    seen = strategy.batch(batch)["seen_ids"]
    total = int(batch["answer_lengths"].sum())
    assert float((seen == pad).sum()) / total == pytest.approx(0.25 + 0.75 / 1000, abs=0.02)
    assert int(seen.max()) < model.config.vocab_size and len(seen.unique()) > 900


def test_every_token_of_the_answer_is_predicted_from_what_is_read(model):
    """Against transformers' own loss, with the labels of the answer's original tokens."""
    strategy, _, _ = started(model, ratio=0.5, rise=0.0)
    batch = strategy.batch(batch_of(rows=8))
    labels = batch["input_ids"].clone()
    for row, length in enumerate(batch["answer_lengths"].tolist()):
        labels[row, :-length] = -100
    expected = model(input_ids=batch["seen_ids"], labels=labels).loss
    assert TASK.loss(model, batch).item() == pytest.approx(expected.item(), rel=1e-5)
    unmasked = {name: value for name, value in batch.items() if name != "seen_ids"}
    assert TASK.loss(model, unmasked).item() != pytest.approx(expected.item(), rel=1e-4)


def test_a_task_without_answers_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe.registry, "load", lambda *_, **__: pytest.fail("it was loaded"))
    spec = make_spec(strategy="mft", model="tiny-gpt2", data="twin", max_length=64)
    with pytest.raises(Unsupported, match="strategy mft needs answers to prompts, which glue/sst2"):
        recipe.run(spec, tmp_path)
    assert not list(tmp_path.iterdir())
