"""A spec as the rooms below know it: what a strategy needs of it, and nothing else."""

from benchmark.records.spec import RunSpec
from benchmark.strategies.settings import TrainingSettings


def training_settings(spec: RunSpec) -> TrainingSettings:
    """How the spec's optimizer and learning rate are to be."""
    return TrainingSettings(
        lr=spec.lr,
        optimizer=spec.optimizer,
        optimizer_options=spec.optimizer_options,
        fused=spec.fused,
        weight_decay=spec.weight_decay,
        schedule=spec.schedule,
        warmup=spec.warmup,
        precision=spec.precision,
        seed=spec.seed,
    )
