"""The part of a RunSpec that data reads. That package does not know RunSpec itself."""

from benchmark.data.settings import DataSettings
from benchmark.records.spec import RunSpec


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
