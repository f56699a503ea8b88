"""Precision, recall and F1 of named entities, as in CoNLL's conlleval: chunk and type must both match.

Tags are IOB2. A chunk begins at a B tag, or at an I tag that does not continue a chunk of its type.
"""

import datasets
import evaluate
import numpy as np

from ._info import info
from ._jackknife import ratio, values

VERSION = "1"


class EntityF1(evaluate.Metric):
    """Predictions and references are lists of tags, one per word."""

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.List(datasets.Value("string"))
        return info(__doc__, tags, tags)

    def _compute(
        self, predictions: list[list[str]], references: list[list[str]]
    ) -> dict[str, float]:
        predicted, right = _all_chunks(predictions), _all_chunks(references)
        both = len(predicted & right)
        precision = both / len(predicted) if predicted else 0.0
        recall = both / len(right) if right else 0.0
        f1 = 2 * both / (len(predicted) + len(right)) if both else 0.0
        return {"precision": precision, "recall": recall, "f1": f1}

    def per_example(
        self, predictions: list[list[str]], references: list[list[str]]
    ) -> dict[str, list[float]]:
        pairs = [
            (set(_chunks(p)), set(_chunks(r))) for p, r in zip(predictions, references, strict=True)
        ]
        parts = np.array([(len(p & r), len(p), len(r)) for p, r in pairs])
        return {
            "precision": values(parts, lambda sums: ratio(sums[..., 0], sums[..., 1])),
            "recall": values(parts, lambda sums: ratio(sums[..., 0], sums[..., 2])),
            "f1": values(parts, lambda sums: ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])),
        }


def _all_chunks(sentences: list[list[str]]) -> set[tuple[int, int, int, str]]:
    """Every chunk as (sentence, first word, word after the last, type)."""
    return {(number, *chunk) for number, tags in enumerate(sentences) for chunk in _chunks(tags)}


def _chunks(tags: list[str]) -> list[tuple[int, int, str]]:
    chunks, start = [], 0
    before = ("O", "")
    for place, tag in enumerate([*tags, "O"]):
        mark, _, kind = tag.partition("-")
        if mark not in ("B", "I", "O"):
            raise ValueError(f"entity_f1: tag {tag!r} is not B-, I- or O")
        continues = mark == "I" and before[0] != "O" and kind == before[1]
        if before[0] != "O" and not continues:
            chunks.append((start, place, before[1]))
        if mark != "O" and not continues:
            start = place
        before = (mark, kind)
    return chunks
