"""A training loop that updates rows of whole matrices, written out, and the engine beside it."""

import copy
import re

import torch
from reference import loss_of, train
from torch import nn

from benchmark.engine import HiFT

LOW = {"master": "all", "low_dtype": torch.bfloat16}


def ranges(name, height):
    """The parameter, and the rows of it that the name says."""
    match = re.fullmatch(r"(.*)\[(\d+):(\d+)\]", name)
    return (name, 0, height) if match is None else (match[1], int(match[2]), int(match[3]))


def adamw(copies):
    return torch.optim.AdamW(list(copies.values()), lr=1e-2)


def by_hand(
    model,
    groups,
    steps,
    *,
    make=adamw,
    loss=loss_of,
    dwell=1,
    fresh=False,
    accumulate=1,
    clip=None,
    low=False,
):
    """A copy of `model` after these steps: (indices of groups, batch). Each group has whole copies of its
    matrices and an optimizer of them, and only its rows of them go back into the model.

    fresh: a new optimizer for each turn. low: the weights are bf16, and what is updated is their fp32."""
    model = copy.deepcopy(model)
    masters = {n: p.detach().clone() for n, p in model.named_parameters()}
    if low:
        model.to(torch.bfloat16)
    named = dict(model.named_parameters())
    source = masters if low else named
    groups = [[ranges(n, len(named[n.partition("[")[0]])) for n in group] for group in groups]
    copies = [{n: nn.Parameter(source[n].detach().clone()) for n, *_ in group} for group in groups]
    optimizers = [make(each) for each in copies]
    for step, (index, data) in enumerate(steps):
        if fresh and step % dwell == 0:
            optimizers[index] = make(copies[index])
        for ids in data:
            (loss(model, ids) / accumulate).backward()
        for name, whole in copies[index].items():
            whole.data.copy_(source[name])
            whole.grad = torch.zeros_like(whole)
        for name, start, stop in groups[index]:
            copies[index][name].grad[start:stop] = named[name].grad[start:stop]
        if (
            clip is not None
        ):  # the norm of each matrix is that of its active rows, one below the other
            norms = [
                torch.cat([named[n].grad[a:b] for n, a, b in groups[index] if n == name]).norm()
                for name in named
                if name in copies[index]
            ]
            factor = torch.clamp(clip / (torch.stack(norms).norm() + 1e-6), max=1.0)
            for whole in copies[index].values():
                whole.grad.mul_(factor)
        optimizers[index].step()
        with torch.no_grad():
            for name, start, stop in groups[index]:
                source[name][start:stop] = copies[index][name][start:stop]
                named[name][start:stop] = source[name][start:stop]
        model.zero_grad(set_to_none=True)
    return model


def both(model, data, *, optimizer="adamw", hand=(), accumulate=1, clip=None, **settings):
    """The model trained by HiFT, and the copy trained by hand; the optimizer."""
    expected = copy.deepcopy(model)
    optimizer = HiFT(model, optimizer, lr=1e-2, partition="rows:80", **settings)
    groups = [group.parameters for group in optimizer.groups]
    steps = []
    for start in range(0, len(data), accumulate):
        steps.append((optimizer.active.index, data[start : start + accumulate]))
        train(model, optimizer, steps[-1][1], accumulate=accumulate, clip=clip)
    hand = dict(hand)
    expected = by_hand(expected, groups, steps, accumulate=accumulate, clip=clip, **hand)
    return model, expected, optimizer


# --- which rows ----------------------------------------------------------------------------------------
