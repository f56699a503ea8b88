"""Canary: a tensor that an optimizer claims to train and leaves as it was is found, and nothing else is."""

import pytest
import torch
from torch import nn

from benchmark.engine.update import coming_update
from benchmark.measure.canary import Canary, Unmoved


def trained(model, optimizer, steps=2):
    canary = Canary(model)
    torch.manual_seed(0)
    for _ in range(steps):
        model(torch.randn(4, 3)).square().sum().backward()
        canary.claim(p for p in model.parameters() if p.grad is not None)
        optimizer.step()
        optimizer.zero_grad()
    return canary


def test_an_optimizer_that_was_not_given_a_parameter_is_found():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    canary = trained(model, torch.optim.AdamW(model[1].parameters(), lr=0.1))
    assert canary.unmoved() == ["0.weight", "0.bias"]
    with pytest.raises(Unmoved, match=r"0\.weight and 1 more had gradients in training and never"):
        canary.check()


def test_all_moved_and_a_zero_gradient_is_no_claim():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    nn.init.zeros_(model[1].weight)  # the first layer gets a gradient of zeros at the first step
    trained(model, torch.optim.SGD(model.parameters(), lr=0.1), steps=1).check()


def test_equal_changes_of_two_values_are_a_move():
    """An xor of the values would not see them: +1 and +1 cancel."""
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.bias)
    canary = Canary(model)
    canary.claim([model.bias])
    nn.init.ones_(model.bias)
    assert canary.unmoved() == []


def test_two_numbers_that_change_by_their_last_bit_are_a_move():
    norm = nn.LayerNorm(64)
    canary = Canary(norm)
    canary.claim([norm.weight])
    with torch.no_grad():
        norm.weight[:2] += torch.finfo(torch.float32).eps
    assert canary.unmoved() == []


def test_rounding_of_16_bits_is_named_and_does_not_fail():
    model = nn.Linear(3, 2, dtype=torch.bfloat16)
    nn.init.ones_(model.weight)
    canary = Canary(model)
    model.weight.grad = torch.ones_like(model.weight)
    canary.claim([model.weight])
    torch.optim.SGD([model.weight], lr=1e-5).step()
    assert canary.unmoved() == ["weight"]
    canary.check()


def test_a_gradient_that_overflowed_is_no_claim():
    model = nn.Linear(3, 2)
    model.weight.grad = torch.full_like(model.weight, float("inf"))
    canary = Canary(model)
    canary.claim([model.weight])
    assert canary.unmoved() == []


def test_a_step_of_sgd_that_rounding_swallows_is_no_claim():
    """A norm's weights of 1 with a learning rate times a gradient below the spacing of numbers there."""
    norm, swallowed = nn.LayerNorm(3), 1e-9
    for rate, found in ((swallowed, []), (0.1, ["weight"])):
        optimizer = torch.optim.SGD(norm.parameters(), lr=rate)
        canary = Canary(norm)
        norm.weight.grad = torch.ones(3)
        update = coming_update(norm, optimizer)
        canary.claim(update.parameters, update.norms, update.rate)
        if rate == swallowed:
            optimizer.step()
        assert canary.unmoved() == found
