"""Matthews correlation, as for CoLA; 0 if predictions or references have one class only."""

import evaluate
import numpy as np
from sklearn.metrics import matthews_corrcoef

from ._info import info
from ._jackknife import ratio, values

VERSION = "1"


class MatthewsCorrelation(evaluate.Metric):
    """Predictions and references are class ids."""

    def _info(self) -> evaluate.MetricInfo:
        return info(__doc__, "int64", "int64")

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        return {"matthews_correlation": matthews_corrcoef(references, predictions)}

    def per_example(self, predictions: list, references: list) -> dict[str, list[float]]:
        classes = np.array(sorted({*predictions, *references}))
        ours, theirs = (np.array(side)[:, None] == classes for side in (predictions, references))
        right = (ours & theirs).any(axis=1, keepdims=True)
        return {"matthews_correlation": values(np.hstack([right, ours, theirs]), _correlation)}


def _correlation(sums: np.ndarray) -> np.ndarray:
    """Matthews correlation from the number of right predictions and the predicted and true class counts."""
    right, (ours, theirs) = sums[..., 0], np.split(sums[..., 1:], 2, axis=-1)
    n = ours.sum(axis=-1)
    spreads = (n**2 - (ours**2).sum(axis=-1)) * (n**2 - (theirs**2).sum(axis=-1))
    return ratio(right * n - (ours * theirs).sum(axis=-1), np.sqrt(spreads))
