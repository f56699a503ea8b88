"""Intrinsic dimension against P written out as a matrix, and against autograd through θ₀ + P z."""

import copy
import math

import pytest
import torch
from torch import nn

from benchmark.strategies.rules.subspace import Subspace, hadamard, project, project_back

D, SEED = 6, 11


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def batches(n):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(7, 5, generator=generator) for _ in range(n)]


def loss_of(output):
    return output.square().mean() + output[:, 0].mean()


def matrices(model):
    """P of each tensor, column by column."""
    return [
        torch.stack([project(row, p.numel(), SEED + i) for row in torch.eye(D)], 1)
        for i, p in enumerate(model.parameters())
    ]


def trained(steps, **options):
    model = net()
    optimizer = Subspace(list(model.parameters()), "adamw", dimension=D, seed=SEED, **options)
    for batch in batches(steps):
        loss_of(model(batch)).backward()
        assert all(p.grad is None for p in model.parameters()), (
            "no gradient outlives its projection"
        )
        update = optimizer.coming_update()
        assert update.numel == D and len(update.parameters) == 4
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def test_fastfood_is_its_formula():
    """s H G Π H B z with Sylvester's matrix, and the same draws."""
    numel, size = 13, 16
    H = torch.ones(1, 1)
    while len(H) < size:
        H = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), H)
    assert torch.equal(hadamard(torch.eye(size)[5]), H[:, 5])
    dice = torch.Generator().manual_seed(9)
    B = torch.diag(torch.randint(0, 2, (size,), generator=dice).mul(2).sub(1).float())
    permutation = torch.eye(size)[torch.randperm(size, generator=dice)]
    G = torch.diag(torch.randn(size, generator=dice))
    wide = H @ G @ permutation @ H @ B
    P = wide[:numel, :D] / (G.norm() * math.sqrt(numel))
    z, g = torch.randn(D), torch.randn(numel)
    assert torch.allclose(project(z, numel, 9), P @ z, atol=1e-5)
    assert torch.allclose(project_back(g, D, 9), P.T @ g, atol=1e-5)


def test_directions_have_unit_length_on_average():
    lengths = [project(torch.eye(D)[0], 1000, seed).norm().item() for seed in range(40)]
    assert sum(lengths) / 40 == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_it_is_training_of_z_by_autograd(decay):
    options = {"lr": 0.05, "weight_decay": decay}
    model, optimizer = trained(8, **options)
    start, P = net(), matrices(net())
    z = torch.zeros(D, requires_grad=True)
    plain = torch.optim.AdamW([z], **options)
    names = [name for name, _ in start.named_parameters()]
    for batch in batches(8):
        moved = {
            name: p.detach() + (each @ z).view_as(p)
            for name, p, each in zip(names, start.parameters(), P, strict=True)
        }
        plain.zero_grad()
        loss_of(torch.func.functional_call(start, moved, (batch,))).backward()
        plain.step()
    assert torch.allclose(optimizer.z, z, atol=1e-5)
    for each, p, first in zip(P, model.parameters(), start.parameters(), strict=True):
        assert torch.allclose(p, first + (each @ z).view_as(p), atol=1e-5)


def test_the_update_lies_in_the_subspace_and_the_state_has_its_size():
    model, optimizer = trained(8, lr=0.05)
    change = torch.cat(
        [(a - b).flatten() for a, b in zip(model.parameters(), net().parameters(), strict=True)]
    )
    P = torch.cat(matrices(net()))
    assert len(P) == 39 > D
    solved = torch.linalg.lstsq(P, change.detach()).solution
    assert torch.allclose(P @ solved, change, atol=1e-5) and change.norm() > 0.1
    assert torch.allclose(solved, optimizer.z, atol=1e-4)
    assert sum(t.nbytes for t in optimizer.device_tensors()) == 3 * 4 * D + 4


def test_gradients_of_micro_batches_add_up():
    whole, parts = net(), net()
    one = Subspace(list(whole.parameters()), "sgd", dimension=D, seed=SEED, lr=0.1)
    two = Subspace(list(parts.parameters()), "sgd", dimension=D, seed=SEED, lr=0.1)
    [batch] = batches(1)
    loss_of(whole(batch)).backward()
    for _ in range(2):
        (loss_of(parts(batch)) / 2).backward()
    assert len(two.coming_update().parameters) == 4
    one.step()
    two.step()
    assert torch.allclose(one.z, two.z, atol=1e-6) and one.z.norm() > 0
    assert not torch.equal(copy.deepcopy(net())[0].weight, whole[0].weight)
