"""FPFT, BAdam, LISA, HFT and MISA as settings of the one block-wise optimizer, beside HiFT."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmark.engine.draws import ByImportance, Halves, Uniform
from benchmark.engine.optimizer import BlockwiseOptimizer
from benchmark.engine.partitions import categories, cut, module_of
from benchmark.engine.units import find_units
from benchmark.errors import UserError

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
        model, optimizer, dwell=switch_every, order=order, idle="reset", **settings
    )


def lisa(
    model: nn.Module,
    optimizer: Optimizer = "adamw",
    *,
    layers: int | str = 2,
    switch_every: int = 20,
    idle: str = "drop",
    **settings: Any,
) -> BlockwiseOptimizer:
    """LISA (arXiv 2403.17919): embeddings and head always active, and `layers` different blocks (or "all")
    drawn every `switch_every` steps.

    idle: "drop" has the memory that the paper states. The authors' implementation, LMFlow, never drops the
    state of a block that was drawn once: "keep". Raises UserError for more layers than there are blocks.
    """
    units = find_units(model, trainable_only=True)
    always = [unit.name for unit in units if unit.kind != "block"]
    blocks = len(units) - len(always)
    count = blocks if layers == "all" else layers
    if not isinstance(count, int) or not 1 <= count <= blocks:
        raise UserError(
            f'layers must be a number from 1 to the {blocks} blocks, or "all": {layers!r}'
        )
    return BlockwiseOptimizer(
        model,
        optimizer,
        units=units,
        always_active=always,
        order=Uniform(count),
        dwell=switch_every,
        idle=idle,
        **settings,
    )


def hft(
    model: nn.Module, optimizer: Optimizer = "adamw", *, switch_every: int, **settings: Any
) -> BlockwiseOptimizer:
    """HFT, half fine-tuning (arXiv 2404.18466, section 2.3): half of the modules of each category train in a
    round of `switch_every` steps, and embeddings and head always.

    The categories of a block are its attention matrices, its other matrices, and its norms; a bias goes with
    its weight. The state of what is frozen is dropped.
    """
    units = find_units(model, trainable_only=True)
    blocks = [unit for unit in units if unit.kind == "block"]
    modules = cut(model, blocks, module_of)
    rest = [unit for unit in units if unit.kind != "block"]
    return BlockwiseOptimizer(
        model,
        optimizer,
        units=[*modules, *rest],
        always_active=[unit.name for unit in rest],
        order=Halves(categories(model, blocks, modules)),
        dwell=switch_every,
        idle="drop",
        **settings,
    )


def misa(
    model: nn.Module,
    optimizer: Optimizer = "adamw",
    *,
    share: float = 0.03,
    eta: float = 1.0,
    smoothing: float = 0.8,
    switch_every: int = 50,
    **settings: Any,
) -> BlockwiseOptimizer:
    """MISA (arXiv 2511.00056, Algorithm 1): tensors drawn by the size of their gradients every `switch_every`
    steps, after which their state is dropped.

    Each trainable tensor of the blocks is a module to draw; the paper's are the matrices, so the others are
    to be frozen before. Trainable tensors outside the blocks are always active. share: the most parameters
    that are drawn together, as a share of the model's. eta: how much the gradients decide; 0 makes all
    modules equally likely. smoothing: of the average of squared gradient norms. If a module is larger than
    the share, its size takes the place of the share, so that each can be drawn.
    """
    units = find_units(model, trainable_only=True)
    modules = cut(model, [unit for unit in units if unit.kind == "block"], str)
    rest = [unit for unit in units if unit.kind != "block"]
    budget = int(share * sum(parameter.numel() for parameter in model.parameters()))
    sizes = tuple(module.numel for module in modules)
    return BlockwiseOptimizer(
        model,
        optimizer,
        units=[*modules, *rest],
        always_active=[unit.name for unit in rest],
        order=ByImportance(sizes, max(budget, *sizes), eta),
        smoothing=smoothing,
        dwell=switch_every,
        idle="reset",
        **settings,
    )
