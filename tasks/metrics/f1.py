"""Binary F1 of class 1, as for MRPC and QQP; 0 if no prediction and no reference is 1."""

import evaluate
import numpy as np
from sklearn.metrics import f1_score

from ._info import info
from ._jackknife import ratio, values

VERSION = "1"


class F1(evaluate.Metric):
    """Predictions and references are class ids, 0 or 1."""

    def _info(self) -> evaluate.MetricInfo:
        return info(__doc__, "int64", "int64")

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        if unknown := {*predictions, *references} - {0, 1}:
            raise ValueError(f"f1 is for the classes 0 and 1, not {sorted(unknown)}")
        return {"f1": f1_score(references, predictions, zero_division=0)}

    def per_example(self, predictions: list, references: list) -> dict[str, list[float]]:
        ours, theirs = np.array(predictions), np.array(references)
        parts = np.stack([2 * ours * theirs, ours + theirs], axis=1)
        return {"f1": values(parts, lambda sums: ratio(sums[..., 0], sums[..., 1]))}
