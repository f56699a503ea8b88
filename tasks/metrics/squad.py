"""SQuAD exact match and token F1 (0 to 1), with the official script's normalisation (version 1.1).

For each question the best of its reference answers counts. For a question without answers (SQuAD 2) an empty
prediction is right.
"""

import datasets
import evaluate

from ._answers import best_matches
from ._info import info

VERSION = "1"


class Squad(evaluate.Metric):
    """Predictions are texts; references are lists of acceptable texts."""

    def _info(self) -> evaluate.MetricInfo:
        return info(__doc__, "string", datasets.List(datasets.Value("string")))

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        scores = self.per_example(predictions, references)
        return {name: sum(values) / len(values) for name, values in scores.items()}

    def per_example(
        self, predictions: list[str], references: list[list[str]]
    ) -> dict[str, list[float]]:
        return best_matches(predictions, references)
