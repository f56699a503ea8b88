"""`hift-bench schedule`: group, learning rate and trainable ratio of each step, without any weights."""

from collections.abc import Iterator
from typing import Any

from benchmark.engine import find_units, make_plan
from benchmark.engine.partitions import partition as cut
from benchmark.models import shapes

UNKNOWN = "decided by the gradients"


def schedule(
    model: str,
    *,
    group_size: int,
    order: str,
    steps: int,
    seed: int = 0,
    dwell: int = 1,
    mode: str = "paper",
    partition: str = "units",
    lr: float = 1.0,
    shape: str = "linear",
    warmup_steps: int = 0,
) -> Iterator[dict[str, Any]]:
    """One row per optimizer step. The trainable ratio is the share of the model's parameters. Where gradients
    decide the order, a row has no group.

    model: a name of MODELS, a local folder or a Hub id. steps: optimizer steps of the run. shape: of the
    learning rate. mode: "paper", or "reference" for the authors' code, which has a rotating queue, one unit
    per module of the head, and its own learning rate. Raises UserError for settings that the engine refuses.
    """
    built = shapes.build(model)
    units = cut(built, find_units(built, split_head=mode == "reference"), partition)
    total = sum(unit.numel for unit in units)
    plan = make_plan(units, group_size=group_size, order=order, seed=seed, dwell=dwell, queue=mode)
    rate = plan.rate(shape, total_steps=steps, warmup_steps=warmup_steps, mode=mode)
    for step in range(steps):
        group = None if plan.schedule.follows_gradients else plan.group_at(step)
        yield {
            "step": step + 1,
            "sweep": plan.schedule.position(step).sweep + 1,
            "group": group.index if group else None,
            "units": " ".join(group.units) if group else UNKNOWN,
            "lr": lr * rate.factor(step),
            "trainable": group.numel if group else None,
            "trainable_ratio": group.numel / total if group else None,
        }
