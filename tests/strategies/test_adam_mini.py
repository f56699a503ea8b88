"""Adam-mini against its package where that runs, and against its algorithm written out where it does not."""

import copy

import pytest
import torch
from factories import make_spec, make_strategy

from benchmark.measure.optimizer_state import state_bytes
from benchmark.models import registry

STEPS, LR, B1, B2, EPS = 10, 1e-3, 0.9, 0.999, 1e-8


def case(name, head="sequence_classification", **more):
    torch.manual_seed(0)
    model = registry.load_model(registry.source(name), head, 1, **more).train()
    ids = torch.randint(10, 900, (4, 12))
    labels = ids if head == "causal_lm" else torch.tensor([0, 1, 1, 0])
    return model, {"input_ids": ids, "labels": labels}


def train(model, batch, optimizer):
    torch.manual_seed(1)
    for _ in range(STEPS):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def ours(model, batch):
    """The trained model, and the bytes of its state."""
    model = copy.deepcopy(model)
    spec = make_spec(strategy="adam_mini", lr=LR, schedule="constant", weight_decay=0.1)
    optimizer, _ = make_strategy(spec).optimizer(model, STEPS)
    train(model, batch, optimizer)
    return model, state_bytes(optimizer)["device"]["optimizer_state"]


def test_the_weights_are_those_of_the_package_on_llama():
    adam_mini = pytest.importorskip("adam_mini")
    model, batch = case("tiny-llama", "causal_lm")
    theirs, config = copy.deepcopy(model), model.config
    package = adam_mini.Adam_mini(
        [(n, p) for n, p in theirs.named_parameters()],
        lr=LR,
        betas=(B1, B2),
        eps=EPS,
        weight_decay=0.1,
        dim=config.hidden_size,
        n_heads=config.num_attention_heads,
        n_kv_heads=config.num_key_value_heads,
        verbose=False,
    )
    train(theirs, batch, package)
    mine, size = ours(model, batch)
    expected = dict(theirs.named_parameters())
    for name, p in mine.named_parameters():
        assert torch.allclose(p, expected[name], rtol=0, atol=1e-6), name
    assert size == state_bytes(package)["device"]["optimizer_state"]


def second_moment(name, gradient, heads):
    """The mean of the squares of each block, for every number of the gradient."""
    square = gradient.square()
    if name.endswith("bias"):
        return square
    if square.ndim == 1:
        return square.mean().expand_as(square)
    if any(part in name for part in (".query.", ".key.")):
        mean = square.view(heads, -1).mean(1)
        return mean.repeat_interleave(len(square) // heads)[:, None].expand_as(square)
    if "c_attn" in name:  # (in, queries + keys + values)
        queries, keys, values = square.chunk(3, dim=1)
        by_head = [
            part.chunk(heads, dim=1)[head].mean().expand(part.shape[0], part.shape[1] // heads)
            for part in (queries, keys)
            for head in range(heads)
        ]
        return torch.cat([*by_head, values.mean(0, keepdim=True).expand_as(values)], dim=1)
    transposed = any(part in name for part in ("c_proj", "c_fc"))
    return square.mean(0 if transposed else 1, keepdim=True).expand_as(square)


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-gpt2"])
def test_it_is_its_algorithm_where_the_package_does_not_run(name):
    model, batch = case(name, num_labels=2)
    reference, heads = copy.deepcopy(model), model.config.num_attention_heads
    average = {n: torch.zeros_like(p) for n, p in reference.named_parameters()}
    squares = {n: torch.zeros_like(p) for n, p in reference.named_parameters()}
    torch.manual_seed(1)
    for step in range(1, STEPS + 1):
        reference.zero_grad()
        reference(**batch).loss.backward()
        with torch.no_grad():
            for n, p in reference.named_parameters():
                average[n] = B1 * average[n] + (1 - B1) * p.grad
                squares[n] = B2 * squares[n] + (1 - B2) * second_moment(n, p.grad, heads)
                size = (squares[n] / (1 - B2**step)).sqrt() + EPS
                decay = 0.1 if p.ndim == 2 else 0.0
                p.mul_(1 - LR * decay).sub_(LR * average[n] / (1 - B1**step) / size)
    mine, size = ours(model, batch)
    blind = ("key.bias", "c_attn.bias")  # their gradients are rounding, scaled up to a real one
    for n, p in mine.named_parameters():
        if not n.endswith(blind):
            assert torch.allclose(p, dict(reference.named_parameters())[n], rtol=0, atol=2e-6), n
    blocks = sum(
        len(second_moment(n, torch.randn_like(p), heads).unique())
        for n, p in mine.named_parameters()
    )
    assert size == 4 * (blocks + sum(p.numel() for p in mine.parameters()))
