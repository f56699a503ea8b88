"""Spearman rank correlation (ties get their mean rank), as for STS-B; 0 if one side is constant."""

import evaluate
from scipy.stats import spearmanr

from ._info import info

VERSION = "1"


class Spearman(evaluate.Metric):
    """Predictions and references are numbers."""

    def _info(self) -> evaluate.MetricInfo:
        return info(__doc__, "float64", "float64")

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        if len({*predictions}) == 1 or len({*references}) == 1:
            return {"spearman": 0.0}
        return {"spearman": spearmanr(predictions, references).statistic}
