"""Pearson correlation, as for STS-B; 0 if predictions or references are constant (undefined)."""

import evaluate
import numpy as np
from scipy.stats import pearsonr

from ._info import info
from ._jackknife import ratio, values

VERSION = "1"


class Pearson(evaluate.Metric):
    """Predictions and references are numbers."""

    def _info(self) -> evaluate.MetricInfo:
        return info(__doc__, "float64", "float64")

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        if len({*predictions}) == 1 or len({*references}) == 1:
            return {"pearson": 0.0}
        return {"pearson": pearsonr(predictions, references).statistic}

    def per_example(self, predictions: list, references: list) -> dict[str, list[float]]:
        x, y = (np.array(side) - np.mean(side) for side in (predictions, references))
        parts = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
        return {"pearson": values(parts, _correlation)}


def _correlation(sums: np.ndarray) -> np.ndarray:
    """The Pearson correlation from n and the sums of x, y, x², y² and xy."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    spreads = np.maximum(n * xx - x * x, 0) * np.maximum(n * yy - y * y, 0)
    return ratio(n * xy - x * y, np.sqrt(spreads))
