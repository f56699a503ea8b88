"""ReCoRD exact match and token F1 of entities (0 to 1), as in SuperGLUE's official script.

For each query the best of its right entities counts, after SQuAD's normalisation.
"""

import datasets
import evaluate

from ._answers import best_matches
from ._info import info

VERSION = "1"


class Record(evaluate.Metric):
    """Predictions are entities as texts; references are lists of the right entities."""

    def _info(self) -> evaluate.MetricInfo:
        return info(__doc__, "string", datasets.List(datasets.Value("string")))

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        if [] in references:
            raise ValueError(f"record: example {references.index([])} has no right entity")
        scores = self.per_example(predictions, references)
        return {name: sum(values) / len(values) for name, values in scores.items()}

    def per_example(
        self, predictions: list[str], references: list[list[str]]
    ) -> dict[str, list[float]]:
        return best_matches(predictions, references)
