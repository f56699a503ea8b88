"""MultiRC as in SuperGLUE (0 to 1): F1 over all answers (F1a) and exact match.

Exact match is the share of questions whose answers are all classified correctly.
"""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import f1_score

from ._info import info
from ._jackknife import ratio, values

VERSION = "1"


class MultiRC(evaluate.Metric):
    """Predictions are 0 or 1, references dicts of a question's id and the label 0 or 1."""

    def _info(self) -> evaluate.MetricInfo:
        label = {"question": datasets.Value("string"), "label": datasets.Value("int64")}
        return info(__doc__, "int64", label)

    def _compute(self, predictions: list[int], references: list[dict]) -> dict[str, float]:
        labels = [reference["label"] for reference in references]
        if unknown := {*predictions, *labels} - {0, 1}:
            raise ValueError(f"multirc is for the classes 0 and 1, not {sorted(unknown)}")
        questions: dict[str, bool] = {}
        for prediction, reference in zip(predictions, references, strict=True):
            right = prediction == reference["label"]
            questions[reference["question"]] = questions.get(reference["question"], True) and right
        return {
            "f1_a": f1_score(labels, predictions, zero_division=0),
            "exact_match": sum(questions.values()) / len(questions),
        }

    def per_example(self, predictions: list[int], references: list[dict]) -> dict[str, list[float]]:
        """For F1a only, because exact match is a score of questions, not of single answers."""
        ours = np.array(predictions)
        theirs = np.array([reference["label"] for reference in references])
        parts = np.stack([2 * ours * theirs, ours + theirs], axis=1)
        return {"f1_a": values(parts, lambda sums: ratio(sums[..., 0], sums[..., 1]))}
