"""Perplexity: e to the mean negative log-likelihood per token, over all tokens of all examples."""

import math

import evaluate
import numpy as np

from ._info import info
from ._jackknife import ratio, values

VERSION = "1"


class Perplexity(evaluate.Metric):
    """Predictions are negative log-likelihoods (nats) summed over tokens; references are token counts."""

    def _info(self) -> evaluate.MetricInfo:
        return info(__doc__, "float64", "int64")

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
        tokens = sum(references)
        if tokens <= 0:
            raise ValueError(f"perplexity: there are {tokens} tokens to average over")
        mean = math.fsum(predictions) / tokens
        # math.exp would overflow; `metrics.compute` then raises NotFinite
        return {"perplexity": math.exp(mean) if mean < 709 else math.inf}

    def per_example(
        self, predictions: list[float], references: list[int]
    ) -> dict[str, list[float]]:
        parts = np.stack([predictions, references], axis=1)
        with np.errstate(over="ignore"):
            perplexities = values(parts, lambda sums: np.exp(ratio(sums[..., 0], sums[..., 1])))
        return {"perplexity": perplexities}
