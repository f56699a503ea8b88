"""The bare loop of a method: its training step in plain torch or with the method's own package.

`hift-bench speed --bare` times each strategy beside it. Both do the same arithmetic on the same weights; what
the strategy takes longer is the price of this suite. A bare loop has no schedule, no weight decay, and no
facts about its step.
"""

import itertools
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from benchmark.engine import Group, find_units, make_plan
from benchmark.engine.wrapped import over
from benchmark.strategies.base import TuningStrategy
from benchmark.strategies.shared.matrices import block_matrices

Batch = dict[str, torch.Tensor]
Step = Callable[[], None]


def full(model: Any, batch: Batch, strategy: TuningStrategy) -> Step:
    """One optimizer over all parameters."""
    return _loop(model, batch, _optimizer(model.parameters(), strategy))


def hift(model: Any, batch: Batch, strategy: TuningStrategy) -> Step:
    """The groups take turns of `dwell` steps, bottom to top; each has an optimizer of its own."""
    options: Any = strategy.options
    groups = make_plan(find_units(model), group_size=options.group_size).groups
    return in_turn(
        model, batch, groups, lambda parameters: _optimizer(parameters, strategy), options.dwell
    )


def in_turn(
    model: Any,
    batch: Batch,
    groups: Sequence[Group],
    optimizer: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer | None],
    dwell: int = 1,
) -> Step:
    """Each group trains for `dwell` steps. optimizer: builds that of a group; None to compute its gradients
    alone."""
    model.requires_grad_(False)
    named = dict(model.named_parameters())
    members = [[named[name] for name in group.parameters] for group in groups]
    turns = itertools.cycle(
        [turn for group in members for turn in [(group, optimizer(group))] * dwell]
    )

    def step() -> None:
        group, group_optimizer = next(turns)
        for parameter in group:
            parameter.requires_grad_(True)
        model(**batch).loss.backward()
        if group_optimizer is not None:
            group_optimizer.step()
        for parameter in group:
            parameter.requires_grad_(False)
            parameter.grad = None

    return step


def badam(model: Any, batch: Batch, strategy: TuningStrategy) -> Step:
    """A unit trains for `dwell` steps with a new optimizer, bottom to top."""
    model.requires_grad_(False)
    named = dict(model.named_parameters())
    units = [[named[name] for name in unit.parameters] for unit in find_units(model)]

    def optimizers() -> Iterator[torch.optim.Optimizer]:
        for unit in itertools.cycle(units):
            for parameter in unit:
                parameter.requires_grad_(True)
            yield from itertools.repeat(_optimizer(unit, strategy), strategy.options.dwell)
            for parameter in unit:
                parameter.requires_grad_(False)

    turns = optimizers()

    def step() -> None:
        optimizer = next(turns)
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def lora(model: Any, batch: Batch, strategy: Any) -> Step:
    """peft's wrapper around the model, and one optimizer over what it trains."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in the strategy
        wrapped: Any = peft.get_peft_model(model, strategy.config(model))
    trained = (p for p in wrapped.parameters() if p.requires_grad)
    return _loop(wrapped, batch, _optimizer(trained, strategy))


def lomo(model: Any, batch: Batch, strategy: TuningStrategy) -> Step:
    """SGD in a hook on each gradient."""
    rate = _rate(strategy)

    @torch.no_grad()
    def update(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        parameter.add_(parameter.grad, alpha=-rate)
        parameter.grad = None

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(update)

    def step() -> None:
        model(**batch).loss.backward()

    return step


def galore(model: Any, batch: Batch, strategy: Any) -> Step:
    """The optimizer of galore-torch over the matrices of the blocks and the rest."""
    from galore_torch import GaLoreAdamW

    matrices = list(block_matrices(model).values())
    projected = set(map(id, matrices))
    rest = [p for p in model.parameters() if id(p) not in projected]
    optimizer = GaLoreAdamW(
        [{"params": rest}, {"params": matrices, **strategy.projection()}],
        lr=_rate(strategy),
        no_deprecation_warning=True,
    )
    return _loop(model, batch, optimizer)


def mezo(model: Any, batch: Batch, strategy: TuningStrategy) -> Step:
    """Two forward passes at weights moved along a direction and back, which is drawn anew each time."""
    parameters = list(model.parameters())
    rate, eps, seeds = _rate(strategy), strategy.options.eps, random.Random(0)
    model.eval()

    def move(seed: int, distance: float) -> None:
        generator = torch.Generator(parameters[0].device).manual_seed(seed)
        for parameter in parameters:
            z = torch.randn(parameter.shape, generator=generator, device=parameter.device)
            parameter.add_(z, alpha=distance)

    @torch.no_grad()
    def step() -> None:
        seed = seeds.randrange(2**31)
        move(seed, eps)
        above = model(**batch).loss
        move(seed, -2 * eps)
        below = model(**batch).loss
        move(seed, eps)
        move(seed, -rate * float(above - below) / (2 * eps))

    return step


LOOPS: Mapping[str, Callable[[Any, Batch, Any], Step]] = {
    loop.__name__: loop for loop in (full, hift, badam, lora, lomo, galore, mezo)
}
"""Strategy -> its bare loop, which takes a model, a batch and the strategy, and returns a step."""


def _loop(model: Any, batch: Batch, optimizer: torch.optim.Optimizer) -> Step:
    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _optimizer(parameters: Any, strategy: TuningStrategy) -> torch.optim.Optimizer:
    """The optimizer of the strategy's settings, without weight decay."""
    settings = strategy.settings
    options = {"weight_decay": 0.0, **settings.optimizer_arguments}
    return over(list(parameters), settings.optimizer, **options)


def _rate(strategy: TuningStrategy) -> float:
    assert strategy.settings.lr is not None
    return strategy.settings.lr
