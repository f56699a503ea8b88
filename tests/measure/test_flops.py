"""Counted operations against matrix products computed by hand."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmark.measure.flops import Flops
from benchmark.measure.training import examples_in


def chain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        # the forward pass; the weight gradients of the trained layers; the input gradients of all layers
        # above the lowest trained one
        ((0, 2, 4), 2 * 32 * (3 * (16 * 4 + 4 * 2) + 2 * 8 * 16)),
        ((2,), 2 * 32 * ((8 * 16 + 16 * 4 + 4 * 2) + 16 * 4 + 4 * 2)),
        ((4,), 2 * 32 * ((8 * 16 + 16 * 4 + 4 * 2) + 4 * 2)),
    ],
)
def test_a_backward_pass_costs_what_it_reaches(trained, expected):
    model, x = chain(), torch.randn(32, 8)
    for place, layer in enumerate(model):
        layer.requires_grad_(place in trained)
    with Flops() as counter:
        model(x).sum().backward()
    assert counter.total == expected


@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
def test_attention_is_two_products_forward_and_at_least_four_backward(backend):
    """Batch 2, 3 heads, 10 queries and keys of width 8: a product takes 2 · 2 · 3 · 10 · 10 · 8 operations.
    The backward pass of the flash kernel computes the attention scores once more."""
    q, k, v = (torch.randn(2, 3, 10, 8, requires_grad=True) for _ in range(3))
    product = 2 * 2 * 3 * 10 * 10 * 8
    with sdpa_kernel(backend), Flops() as counter:
        out = nn.functional.scaled_dot_product_attention(q, k, v)
        assert counter.total == 2 * product
        out.sum().backward()
    assert counter.total == (6 if backend is SDPBackend.MATH else 7) * product


def test_an_example_with_several_inputs_counts_once():
    inputs = torch.zeros(6, 3)
    assert examples_in({"input_ids": inputs}) == 6
    assert examples_in({"input_ids": inputs, "counts": torch.tensor([2, 4])}) == 2
