"""BLEU, NIST and CIDEr of many texts at once, from one table of n-gram counts per order.

The definitions are those of the official e2e-metrics: BLEU and NIST of its port of mteval-v13a, CIDEr of the
COCO caption evaluation. Existing libraries count in Python dicts, text by text, at about 0.5 ms per
prediction. Here each order takes a few array operations.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Counts:
    """How often each n-gram of one order occurs in each text. `text`, `gram`, `count`: one entry per pair.

    N-grams are numbered over all texts. `parent` has one entry per n-gram: the number of its first n-1 words
    among the n-grams of the order below (0 for single words).
    """

    text: np.ndarray
    gram: np.ndarray
    count: np.ndarray
    parent: np.ndarray

    def of(self, rows: np.ndarray) -> "Counts":
        """The entries where the boolean mask `rows` is true."""
        return Counts(self.text[rows], self.gram[rows], self.count[rows], self.parent)


class Segments:
    """Tokenised predictions with their references: `references[i]` are the references of `predictions[i]`."""

    def __init__(self, predictions: list[list[str]], references: list[list[list[str]]]) -> None:
        self.size = len(predictions)
        self.references = np.array([len(texts) for texts in references])
        texts = [*predictions, *(text for texts in references for text in texts)]
        # the segment of each text; texts 0 to size-1 are the predictions
        segments = np.arange(self.size)
        self.segment = np.concatenate([segments, np.repeat(segments, self.references)])
        self.length = np.array([len(text) for text in texts])
        words, _ = pd.factorize(np.array([word for text in texts for word in text], dtype=object))
        self._words = words

    def orders(self, highest: int) -> Iterator[Counts]:
        """The counts of single words, of pairs, and so on up to n-grams of order `highest`."""
        text = np.repeat(np.arange(len(self.length)), self.length)
        end = np.repeat(np.cumsum(self.length), self.length)
        start = np.arange(len(self._words))
        vocabulary = int(self._words.max(initial=0)) + 1
        gram, parent = self._words, np.zeros(vocabulary, dtype=np.int64)
        for order in range(1, highest + 1):
            if order > 1:
                inside = start + order <= end
                start, text, end, gram = start[inside], text[inside], end[inside], gram[inside]
                gram, longer = pd.factorize(gram * vocabulary + self._words[start + order - 1])
                parent = longer // vocabulary
            grams = max(len(parent), 1)
            pair, pairs = pd.factorize(text * grams + gram)
            yield Counts(pairs // grams, pairs % grams, np.bincount(pair), parent)

    def matched(self, predicted: Counts, others: Counts) -> tuple[np.ndarray, np.ndarray]:
        """For the rows of both tables, the number of their (segment, gram) pair in one numbering."""
        grams = max(len(predicted.parent), 1)
        tables = [self.segment[table.text] * grams + table.gram for table in (predicted, others)]
        pair, _ = pd.factorize(np.concatenate(tables))
        return pair[: len(predicted.text)], pair[len(predicted.text) :]

    def hits(self, predicted: Counts, others: Counts) -> np.ndarray:
        """For each row of `predicted`, its count, clipped to the most that one reference has."""
        ours, theirs = self.matched(predicted, others)
        most = np.zeros(max(ours.max(initial=-1), theirs.max(initial=-1)) + 1, dtype=np.int64)
        np.maximum.at(most, theirs, others.count)
        return np.minimum(predicted.count, most[ours])

    def split(self, counts: Counts) -> tuple[Counts, Counts]:
        """The rows of the predictions, and those of the references."""
        return counts.of(counts.text < self.size), counts.of(counts.text >= self.size)


def bleu_sums_and_nist(segments: Segments) -> tuple[np.ndarray, float]:
    """What each segment adds to the sums that `bleu` reads, (segments, 10); and NIST of orders 1 to 5."""
    lengths, longest = segments.length[: segments.size], 5
    hits, informed = np.zeros((segments.size, longest)), np.zeros(longest)
    # a text shorter than the order counts negatively, as in the official script
    totals = lengths[:, None] - np.arange(longest)
    shorter = np.array([segments.length[segments.size :].sum()])
    for order, counts in enumerate(segments.orders(longest)):
        predicted, others = segments.split(counts)
        clipped = segments.hits(predicted, others)
        occurring = np.bincount(others.gram, others.count, minlength=len(counts.parent))
        known = clipped > 0
        grams = predicted.gram[known]
        information = np.log2(shorter[counts.parent[grams]] / occurring[grams])
        hits[:, order] = np.bincount(predicted.text, clipped, minlength=segments.size)
        informed[order] = (information * clipped[known]).sum()
        shorter = occurring
    sums = np.column_stack([hits[:, :4], totals[:, :4], lengths, _closest(segments)])
    return sums, _nist(segments, informed, totals.sum(axis=0))


def _closest(segments: Segments) -> np.ndarray:
    """The length of each segment's reference that is closest in length; on a tie the shorter one."""
    others = segments.length[segments.size :]
    segment = segments.segment[segments.size :]
    distance = np.abs(others - segments.length[: segments.size][segment])
    first = np.concatenate([[0], np.cumsum(segments.references)[:-1]])
    return others[np.lexsort((others, distance, segment))][first]


def bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU of orders 1 to 4 (0 to 1, unsmoothed) from sums (..., 10).

    The sums are: matched n-grams of each order, n-grams of each order, words of the predictions, and words of
    the closest references.
    """
    hits, totals, words, closest = np.split(sums, [4, 8, 9], axis=-1)
    brevity = np.exp(np.where(words > closest, 0.0, 1 - closest / np.maximum(words, 1e-5)))
    # lower bounds as in the official script, so that the logarithm is defined
    precisions = np.log(np.maximum(hits, 1e-15) / np.maximum(totals, 1e-9))
    return brevity[..., 0] * np.exp(precisions.mean(axis=-1))


def _nist(segments: Segments, informed: np.ndarray, totals: np.ndarray) -> float:
    lengths = np.bincount(
        segments.segment[segments.size :], segments.length[segments.size :], minlength=segments.size
    )
    wanted = (lengths / segments.references).sum()
    ratio = totals[0] / wanted
    # chosen by NIST: the penalty is 0.5 if the prediction has two thirds of the reference length
    beta = math.log(2) / math.log(1.5) ** 2
    penalty = math.exp(-beta * math.log(ratio) ** 2) if 0 < ratio < 1 else float(ratio >= 1)
    scored = totals > 0
    return penalty * float((informed[scored] / totals[scored]).sum())


def cider(segments: Segments, sigma: float = 6.0) -> float:
    """CIDEr-D (the COCO variant): the mean over segments and orders 1 to 4, times 10."""
    references = len(segments.length) - segments.size
    similarity = np.zeros(references)
    segment = segments.segment[segments.size :]
    for counts in segments.orders(4):
        predicted, others = segments.split(counts)
        texts = pd.DataFrame({"gram": others.gram, "segment": segments.segment[others.text]})
        containing = np.bincount(texts.drop_duplicates()["gram"], minlength=len(counts.parent))
        weight = math.log(segments.size) - np.log(np.maximum(containing, 1))
        ours, theirs = (weight[table.gram] * table.count for table in (predicted, others))
        our_pair, their_pair = segments.matched(predicted, others)
        aligned = np.zeros(max(our_pair.max(initial=-1), their_pair.max(initial=-1)) + 1)
        aligned[our_pair] = ours
        product = np.minimum(aligned[their_pair], theirs) * theirs
        text = others.text - segments.size
        dot, square = (
            np.bincount(text, values, minlength=references) for values in (product, theirs**2)
        )
        our_square = np.bincount(predicted.text, ours**2, minlength=segments.size)[segment]
        norm = np.sqrt(our_square) * np.sqrt(square)
        similarity += np.divide(dot, norm, out=dot, where=norm > 0)
    # the official script measures the length of a text in word pairs
    pairs = np.maximum(segments.length - 1, 0)
    difference = pairs[: segments.size][segment] - pairs[segments.size :]
    similarity *= np.exp(-(difference**2) / (2 * sigma**2)) / 4
    means = np.bincount(segment, similarity, minlength=segments.size) / segments.references
    return 10 * float(means.mean())
