"""LoFiT against a BERT whose attention heads are scaled and moved by hand."""

import copy

import pytest
import torch
from factories import make_spec, make_strategy
from torch.nn import functional

from benchmark.models import registry
from benchmark.strategies.shared.head_edits import choose


def load(name="tiny-bert"):
    torch.manual_seed(0)
    model = registry.load_model(registry.source(name), "sequence_classification", 1).eval()
    ids = torch.randint(10, 900, (4, 12), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return model, batch | {"labels": torch.tensor([0, 1, 1, 0])}


def prepared(model, **options):
    strategy = make_strategy(make_spec(strategy="lofit", options=options, lr=1e-2))
    torch.manual_seed(3)
    return strategy, strategy.prepare(copy.deepcopy(model)).eval()


def edits(model):
    return [m for n, m in model.named_modules() if n.endswith(".lofit")]


def written_out(model, ids):
    hidden = model.bert.embeddings(ids)
    for layer in model.bert.encoder.layer:
        heads = layer.attention.self(hidden, None)[0].view(*ids.shape, 2, 32)
        own = layer.attention.output.lofit
        heads = heads * (1 + own.scale) + own.offset
        dense, norm = layer.attention.output.dense, layer.attention.output.LayerNorm
        hidden = norm(functional.linear(heads.flatten(2), dense.weight, dense.bias) + hidden)
        hidden = layer.output(layer.intermediate(hidden), hidden)
    return hidden


def test_it_is_bert_with_every_head_scaled_and_moved():
    model, batch = load()
    _, ours = prepared(model, spread=0.5)
    with torch.no_grad():
        for own in edits(ours):
            own.offset.copy_(torch.randn_like(own.offset))
    found = ours.bert(batch["input_ids"]).last_hidden_state
    torch.testing.assert_close(found, written_out(ours, batch["input_ids"]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("twin", ["tiny-bert", "tiny-gpt2", "tiny-opt", "tiny-llama"])
def test_scales_choose_the_heads_whose_offsets_then_train_alone(twin):
    model, batch = load(twin)
    strategy, ours = prepared(model, share=0.25, selection=0.5)
    optimizer, scheduler = strategy.optimizer(ours, 8)
    frozen = {n: p.clone() for n, p in ours.named_parameters() if not p.requires_grad}
    numbers = []
    for step in range(8):
        strategy.loss(ours, lambda: ours(**batch).loss).backward()
        numbers.append(strategy.coming_update(ours, optimizer).numel)
        before = [own.scale.detach().clone() for own in edits(ours)]
        optimizer.step()
        if step < 3:
            assert not any(own.offset.any() for own in edits(ours))
            assert all(
                not torch.equal(a, o.scale) for a, o in zip(before, edits(ours), strict=True)
            )
        scheduler.step()
        optimizer.zero_grad()
    chosen = torch.stack([own.chosen[:, 0] for own in edits(ours)]).bool()
    moved = torch.stack([own.offset.abs().amax(dim=1) > 5e-3 for own in edits(ours)])
    assert torch.equal(chosen, moved) and chosen.sum() == 2
    assert not any(
        own.scale.any() or own.offset[~own.chosen[:, 0].bool()].any() for own in edits(ours)
    )
    new_head = sum(p.numel() for p in ours.parameters() if p.requires_grad) - sum(
        own.offset.numel() for own in edits(ours) if own.offset.requires_grad
    )
    assert numbers == [8 * 32 + new_head] * 4 + [2 * 32 + new_head] * 4
    after = dict(ours.named_parameters())
    scales = {n for n in frozen if ".lofit." in n}
    assert all(torch.equal(after[n], value) for n, value in frozen.items() if n not in scales)


def test_the_heads_with_the_largest_scales_of_all_layers_are_chosen():
    model, _ = load()
    _, ours = prepared(model)
    sizes = torch.tensor([[1.0, 8.0], [2.0, 3.0], [-9.0, 4.0], [5.0, 6.0]])
    with torch.no_grad():
        for own, of_layer in zip(edits(ours), sizes, strict=True):
            own.scale.copy_(of_layer[:, None].expand(2, 32))
    choose(edits(ours), 3 / 8, 1e-3)
    chosen = torch.stack([own.chosen[:, 0] for own in edits(ours)])
    assert torch.equal(chosen.bool(), sizes.abs() >= 6)
    trains = [own.offset.requires_grad for own in edits(ours)]
    assert trains == [True, False, True, True]


def test_the_absolute_sum_of_the_scales_is_in_the_loss_while_they_train():
    model, batch = load()
    strategy, ours = prepared(model, l1=2.0, selection=0.5)
    optimizer, _ = strategy.optimizer(ours, 2)
    plain = ours(**batch).loss
    expected = plain + 2.0 * sum(own.scale.abs().sum() for own in edits(ours))
    loss = strategy.loss(ours, lambda: ours(**batch).loss)
    assert loss.item() == pytest.approx(expected.item())
    loss.backward()
    optimizer.step()  # the last of the selection
    assert strategy.loss(ours, lambda: plain) is plain
