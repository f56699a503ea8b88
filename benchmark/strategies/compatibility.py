"""What each strategy works with. It is read from the strategy's class, so a new one brings its own line.

One table serves three ends: a run is refused before its model loads, a plan shows the run as unsupported, and
`hift-bench list strategies` prints it. No torch is imported.
"""

from typing import Any

from pydantic import BaseModel

from benchmark.optimizers import ELEMENTWISE
from benchmark.strategies.base import TuningStrategy
from benchmark.strategies.settings import TrainingSettings

FEATURES = {
    "accumulate": "gradient accumulation over several micro-batches",
    "clip": "clipping by the norm of all gradients",
    "checkpointing": "activation checkpointing",
    "data_parallel": "several devices, each with a part of the batch",
    "sharded": "several devices that divide the weights, gradients and optimizer state too (FSDP2)",
}
"""What a strategy may refuse (`TuningStrategy.refuses`) -> what it is."""
SHARDED = ("fp32", "bf16")
"""The precisions of a run whose devices divide the model."""
PRECISIONS = ("fp32", "bf16", "fp16", "bf16_weights", "mixed", "mixed_hi")
OWN_RULE = ("optimizer", "optimizer_options", "fused")
"""The settings of an optimizer, which a strategy with an update rule of its own does not use."""


def refusal(
    name: str, kind: type[TuningStrategy], settings: TrainingSettings, options: BaseModel
) -> str | None:
    """Why the strategy does not work with the settings and its options, in one line; None if it does."""
    if settings.precision not in kind.precisions:
        return f"strategy {name} has no precision {settings.precision}, only {', '.join(kind.precisions)}"
    if kind.optimizers == ():
        unset = TrainingSettings(lr=settings.lr)
        for key in OWN_RULE:
            if getattr(settings, key) != getattr(unset, key):
                return f"strategy {name} has an update rule of its own: leave {key} out"
    elif kind.optimizers is not None and settings.optimizer not in kind.optimizers:
        only = ", ".join(kind.optimizers)
        return f"strategy {name} does not work with optimizer {settings.optimizer}, only {only}"
    asked = {
        "accumulate": settings.accumulate > 1,
        "clip": settings.clip is not None,
        "checkpointing": settings.checkpointing,
        "data_parallel": settings.devices > 1,
        "sharded": settings.sharded,
        settings.precision: True,
        settings.optimizer: True,
    }
    for feature, reason in kind.refused(options).items():
        if asked.get(feature):
            return f"strategy {name} does not work with {feature}: {reason}"
    if settings.sharded and settings.precision not in SHARDED:
        return (
            f"precision {settings.precision} does not work with sharded: it has not been tried; use "
            f"{' or '.join(SHARDED)}"
        )
    if settings.sharded and settings.optimizer not in ELEMENTWISE:
        return (
            f"optimizer {settings.optimizer} does not work with sharded: it may need whole matrices, and a "
            f"device has some rows of them; use {', '.join(ELEMENTWISE)}"
        )
    return None


def row(name: str, kind: type[TuningStrategy]) -> dict[str, Any]:
    """The strategy's line of the table: what it works with, by column."""
    if not kind.trains:
        return {"optimizers": "", "precisions": "", **dict.fromkeys(FEATURES, "")}
    optimizers = "all" if kind.optimizers is None else ", ".join(kind.optimizers) or "its own"
    refused = dict(kind.refuses)
    if "data_parallel" in refused:  # which sharded is too
        refused["sharded"] = refused["data_parallel"]
    return {
        "optimizers": optimizers,
        "precisions": ", ".join(kind.precisions),
        **{feature: refused.get(feature, "yes") for feature in FEATURES},
    }
