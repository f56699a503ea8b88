"""Accuracy: the share of predictions that equal their reference."""

import evaluate
from sklearn.metrics import accuracy_score

from ._info import info

VERSION = "1"


class Accuracy(evaluate.Metric):
    """Predictions and references are class ids."""

    def _info(self) -> evaluate.MetricInfo:
        return info(__doc__, "int64", "int64")

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        return {"accuracy": accuracy_score(references, predictions)}

    def per_example(self, predictions: list, references: list) -> dict[str, list[float]]:
        return {"accuracy": [float(p == r) for p, r in zip(predictions, references, strict=True)]}
