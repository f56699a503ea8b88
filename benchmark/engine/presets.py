"""FPFT, BAdam and LISA as settings of the one block-wise optimizer, beside HiFT."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmark.engine.optimizer import BlockwiseOptimizer
from benchmark.engine.units import find_units

Optimizer = str | type[torch.optim.Optimizer]


def fpft(model: nn.Module, optimizer: Optimizer = "adamw", **settings: Any) -> BlockwiseOptimizer:
    """Full-parameter fine-tuning: one group of all units."""
    return BlockwiseOptimizer(model, optimizer, group_size="all", **settings)


def badam(
    model: nn.Module,
    optimizer: Optimizer = "adamw",
    *,
    switch_every: int = 50,
    order: str = "reshuffle",
    **settings: Any,
) -> BlockwiseOptimizer:
    """BAdam (arXiv 2404.02827): one unit for `switch_every` steps, then its state is dropped.

    order: reshuffle (a new permutation each sweep), bottom2up or top2down. Low-precision
    weights get an fp32 copy of the active unit, created at each switch. Unlike the package badam's
    default, embeddings and head are trained; frozen=("embeddings", "head") leaves them out.
    """
    low = any(p.dtype in (torch.bfloat16, torch.float16) for p in model.parameters())
    if low or "low_dtype" in settings:
        settings = {"master": "active", **settings}
    return BlockwiseOptimizer(
        model, optimizer, dwell=switch_every, order=order, idle="drop", **settings
    )


def lisa(
    model: nn.Module,
    optimizer: Optimizer = "adamw",
    *,
    layers: int | str = 2,
    switch_every: int = 20,
    **settings: Any,
) -> BlockwiseOptimizer:
    """LISA (arXiv 2403.17919): embeddings and head always active, and `layers` blocks drawn every
    `switch_every` steps. Unlike in the paper the drawn blocks are neighbours, since a draw picks a fixed
    group."""
    units = find_units(model, trainable_only=True)
    always = [unit.name for unit in units if unit.kind != "block"]
    return BlockwiseOptimizer(
        model,
        optimizer,
        group_size=layers,
        always_active=always,
        order="sample",
        dwell=switch_every,
        idle="drop",
        **settings,
    )
