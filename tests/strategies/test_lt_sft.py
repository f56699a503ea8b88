"""LT-SFT against a written-out loop with masked gradients, as the authors' code has it."""

import copy

import pytest
import torch
from torch import nn

from benchmark.strategies.rules.lottery_ticket import LotteryTicket

FULL, SPARSE = 4, 5


def net():
    torch.manual_seed(0)
    return nn.ModuleDict({"base": nn.Linear(6, 5), "head": nn.Linear(5, 3)})


def forward(model, batch):
    return model["head"](torch.tanh(model["base"](batch))).square().mean()


def batches(seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(7, 6, generator=generator) for _ in range(FULL + SPARSE)]


def trained(share, *, decay=0.0, clip=None, optimizer=torch.optim.AdamW, seed=3):
    model = net()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    ticket = LotteryTicket(
        groups,
        lambda groups: optimizer(groups, lr=0.05),
        sparse=list(model["base"].parameters()),
        share=share,
        full_steps=FULL,
    )
    updates = []
    for batch in batches(seed):
        forward(model, batch).backward()
        if clip:  # as Lightning does, which looks for gradients in the optimizer
            held = [p for group in ticket.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(held, clip)
        updates.append(ticket.coming_update())
        ticket.step()
        ticket.zero_grad()
    return model, ticket, updates


@pytest.mark.parametrize("clip", [None, 0.01])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_it_is_the_written_out_loop(clip, optimizer):
    model, _, _ = trained(0.2, clip=clip, optimizer=optimizer)
    start = net()
    written, data = net(), batches()

    def run(batches, masks):
        plain = optimizer([{"params": list(written.parameters()), "weight_decay": 0.0}], lr=0.05)
        for batch in batches:
            forward(written, batch).backward()
            for name, mask in masks.items():
                written["base"].get_parameter(name).grad.mul_(mask)
            if clip:
                nn.utils.clip_grad_norm_(written.parameters(), clip)
            plain.step()
            plain.zero_grad()

    run(data[:FULL], {})
    moved = {
        n: (p - start["base"].get_parameter(n)).abs() for n, p in written["base"].named_parameters()
    }
    flat = torch.cat([each.flatten() for each in moved.values()])
    threshold = flat.sort(descending=True).values[int(0.2 * len(flat)) - 1]
    written.load_state_dict(start.state_dict())
    run(data[FULL:], {name: each >= threshold for name, each in moved.items()})
    for ours, theirs in zip(model.parameters(), written.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-7)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_only_selected_entries_move_and_the_head_whole(decay):
    model, ticket, updates = trained(0.2, decay=decay)
    start = net()
    changed = [
        (a != b).sum().item()
        for a, b in zip(model["base"].parameters(), start["base"].parameters(), strict=True)
    ]
    assert sum(changed) == int(0.2 * 35) == 7, "weight decay moves no other entry either"
    assert all(
        (a != b).all()
        for a, b in zip(model["head"].parameters(), start["head"].parameters(), strict=True)
    )
    head = sum(p.numel() for p in model["head"].parameters())
    assert [update.numel for update in updates] == [35 + head] * FULL + [7 + head] * SPARSE
    assert not updates[0].parameters and len(updates[-1].parameters) >= 3
    moments = 2 * 4 * (7 + head)
    steps = 4 * len(updates[-1].parameters)
    device = ticket.state_bytes()["device"]["optimizer_state"]
    assert device == moments + steps + 7 * (4 + 8), "moments, step counts, values and indices"
    assert ticket.state_bytes()["host"]["optimizer_state"] == 4 * (35 + head)


def test_differences_are_the_update_and_compose():
    one, ticket, _ = trained(0.2)
    other, second, _ = trained(0.2, seed=8)
    assert not torch.equal(one["base"].weight, other["base"].weight)

    def applied(*tickets):
        model = copy.deepcopy(net())
        for each in tickets:
            of = zip(model["base"].parameters(), each.difference().values(), strict=True)
            for parameter, (entries, moved) in of:
                parameter.data.view(-1)[entries] += moved
        return model["base"]

    for alone, trained_ in ((ticket, one), (second, other)):
        for a, b in zip(applied(alone).parameters(), trained_["base"].parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-7)
    both, start = applied(ticket, second), net()["base"]
    summed = one["base"].weight + other["base"].weight - start.weight
    assert torch.allclose(both.weight, summed, atol=1e-6)
