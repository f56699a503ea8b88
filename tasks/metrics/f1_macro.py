"""Macro F1, as for CB: the mean F1 over the classes that occur in predictions or references."""

import evaluate
from sklearn.metrics import f1_score

from ._info import info

VERSION = "1"


class F1Macro(evaluate.Metric):
    """Predictions and references are class ids."""

    def _info(self) -> evaluate.MetricInfo:
        return info(__doc__, "int64", "int64")

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        return {"f1_macro": f1_score(references, predictions, average="macro", zero_division=0)}
