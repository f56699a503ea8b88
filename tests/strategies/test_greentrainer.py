"""GreenTrainer: its choices against all subsets, its importance against a step written out."""

import itertools
import random

import pytest
import torch
import transformers
from torch import nn

from benchmark.errors import UserError
from benchmark.strategies.rules.flop_budget import FlopBudget, operations, select


def cost_of(subset, dy, dw):
    """Gradients pass down to the deepest chosen tensor; each chosen one has its own."""
    return sum(dy[: max(subset) + 1]) + sum(dw[i] for i in subset) if subset else 0


@pytest.mark.parametrize("seed", range(12))
def test_the_choice_is_the_best_of_all_subsets(seed):
    dice = random.Random(seed)
    n = 8
    dy, dw = ([dice.randrange(0, 50) for _ in range(n)] for _ in range(2))
    dy[0] += 10_000 - sum(dy) - sum(dw)  # so that a unit is one operation, and nothing is rounded
    dy = [*dy[1:], dy[0]]
    importance = [dice.uniform(-1, 3) for _ in range(n)]
    budget = dice.randrange(60, 500)
    chosen = [i for i, each in enumerate(select(importance, dy, dw, budget)) if each]
    fitting = [
        subset
        for size in range(1, n + 1)
        for subset in itertools.combinations(range(n), size)
        if cost_of(subset, dy, dw) <= budget
    ]
    assert cost_of(chosen, dy, dw) <= budget
    best = max(sum(importance[i] for i in subset) for subset in fitting)
    assert sum(importance[i] for i in chosen) == pytest.approx(best)


def test_the_authors_example():
    """simple_test of tensor_selector.py: half of the tensors for 0.6 of the backward pass."""
    dy, dw = [0, 2, 1, 4, 0], [5, 1, 7, 3, 1]
    importance = [1.0, 3.0, 10.0, 5.0, 3.0]
    chosen = select(importance, dy, dw, 0.6 * 24)
    assert [i for i, each in enumerate(chosen) if each] == [1, 2]
    assert cost_of([1, 2], dy, dw) == 11


def test_a_budget_below_the_forward_pass_is_refused():
    assert select([1.0], [2], [2], -1) == [False]
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    rule = FlopBudget(model, inner, rho=0.2, every=3)
    with pytest.raises(UserError, match=r"rho 0\.2 leaves no tensor to train"):
        rule.prepare(lambda: model(torch.ones(3, 4)).square().mean())


def test_operations_are_those_of_the_matrices_and_of_a_tied_head():
    config = transformers.GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2, n_positions=16)
    model = transformers.GPT2LMHeadModel(config)
    named = dict(model.named_parameters())
    with operations(model, named) as cost:
        model(torch.zeros(3, 5, dtype=torch.long))
    dy, dw = dict(zip(named, cost.dy, strict=True)), dict(zip(named, cost.dw, strict=True))
    n = 15
    assert dy["transformer.h.0.attn.c_attn.weight"] == dw["transformer.h.0.attn.c_attn.weight"]
    assert dw["transformer.h.0.attn.c_attn.weight"] == 2 * n * 8 * 24
    assert (
        dw["transformer.h.0.mlp.c_fc.bias"] == n * 32 and dy["transformer.h.0.mlp.c_fc.bias"] == 0
    )
    assert (
        dw["transformer.wte.weight"] == n * 8 + 2 * n * 8 * 50 and dy["transformer.wte.weight"] == 0
    )
    assert dy["transformer.ln_f.bias"] == 2 * n * 8 * 50, (
        "the head's gradient passes above all else"
    )
    matrices = 8 * 24 + 8 * 8 + 2 * 8 * 32 + 8 * 50
    assert cost.forward == 2 * n * (matrices + 3 * 8)


def nets(n):
    for _ in range(n):
        torch.manual_seed(1)
        yield nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))


def test_tensors_are_chosen_by_the_loss_that_a_step_saves():
    model, written = nets(2)
    batch = torch.randn(9, 6, generator=torch.Generator().manual_seed(2))

    def loss_of(net):
        return (net(batch) - 1).square().mean()

    rule = FlopBudget(model, torch.optim.SGD(model.parameters(), lr=0.05), rho=0.7, every=2)
    rule.prepare(lambda: loss_of(model))
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), written.parameters(), strict=True)
    )
    chosen = [p.requires_grad for p in model.parameters()]

    loss_of(written).backward()
    changes = [-0.05 * p.grad for p in written.parameters()]
    with torch.no_grad():
        for parameter, change in zip(written.parameters(), changes, strict=True):
            parameter.add_(change)
    written.zero_grad()
    loss_of(written).backward()
    importance = [
        -(p.grad * change).sum().item()
        for p, change in zip(written.parameters(), changes, strict=True)
    ]
    n, weights = 9, (48, 64, 16)
    dw = [c for w, b in zip(weights, (8, 8, 2), strict=True) for c in (2 * n * w, n * b)]
    dy = [c for w in weights for c in (2 * n * w, 0)]
    forward = 2 * n * sum(weights)
    budget = 0.7 * (forward + sum(dy) + sum(dw)) - forward
    expected = select(importance[::-1], dy[::-1], dw[::-1], budget)[::-1]
    assert chosen == expected and 0 < sum(chosen) < 6
    spent = cost_of([i for i, each in enumerate(chosen[::-1]) if each], dy[::-1], dw[::-1])
    assert spent <= budget


def test_only_chosen_tensors_move_until_the_next_choice():
    model, start = nets(2)
    generator = torch.Generator().manual_seed(2)
    rule = FlopBudget(model, torch.optim.AdamW(model.parameters(), lr=0.01), rho=0.6, every=3)
    for step in range(6):
        batch = torch.randn(9, 6, generator=generator)

        def forward(batch=batch):
            return (model(batch) - 1).square().mean()

        rule.prepare(forward)
        chosen = [p.requires_grad for p in model.parameters()]
        if step % 3 == 0:
            first, before = chosen, [p.detach().clone() for p in model.parameters()]
        assert chosen == first
        forward().backward()
        rule.step()
        rule.zero_grad()
        moved = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
        assert moved == chosen and not all(chosen)
    assert any(
        not torch.equal(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True)
    )
