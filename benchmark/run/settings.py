"""The parts of a RunSpec that strategies and data read. Those packages do not know RunSpec itself."""

from benchmark.data.settings import DataSettings
from benchmark.records.spec import RunSpec
from benchmark.strategies.settings import TrainingSettings


def training_settings(spec: RunSpec) -> TrainingSettings:
    """The spec's settings for a strategy: optimizer, learning rate and precision."""
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


def data_settings(spec: RunSpec) -> DataSettings:
    """The spec's settings for the data: which rows, and in which form."""
    return DataSettings(
        data=spec.data,
        seed=spec.seed,
        train_examples=spec.train_examples,
        eval_examples=spec.eval_examples,
        dev_examples=spec.dev_examples,
        max_length=spec.max_length,
        too_long=spec.too_long,
        demonstrations=spec.demonstrations,
        trains=spec.lr is not None,
    )
