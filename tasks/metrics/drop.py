"""DROP exact match and F1 (0 to 1), as in the official script, for numbers, spans and dates.

An answer is a list of spans, each a bag of words. F1 is the mean over the best one-to-one pairing of
predicted and right spans. If the right span has numbers and the predicted one shares none of them, their F1
is 0. For each question the best of its reference answers counts.
"""

import functools
import re
import string

import datasets
import evaluate
import numpy
from scipy.optimize import linear_sum_assignment

from ._info import info

VERSION = "1"

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_BLANK_OR_HYPHEN = re.compile("[ -]")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Drop(evaluate.Metric):
    """Predictions are lists of spans; references lists of acceptable answers, each a list of spans.

    A number is one span ("7"), and so is a date ("4 July 1776").
    """

    def _info(self) -> evaluate.MetricInfo:
        spans = datasets.List(datasets.Value("string"))
        return info(__doc__, spans, datasets.List(spans))

    def _compute(
        self, predictions: list[list[str]], references: list[list[list[str]]]
    ) -> dict[str, float]:
        scores = self.per_example(predictions, references)
        return {name: sum(values) / len(values) for name, values in scores.items()}

    def per_example(
        self, predictions: list[list[str]], references: list[list[list[str]]]
    ) -> dict[str, list[float]]:
        exact, f1 = [], []
        for prediction, answers in zip(predictions, references, strict=True):
            # the official script skips an answer whose first span is blank
            nonblank = [answer for answer in answers if answer and answer[0].strip()]
            matches = [match(prediction, answer) for answer in nonblank]
            exact.append(max((match[0] for match in matches), default=0.0))
            f1.append(max((match[1] for match in matches), default=0.0))
        return {"exact_match": exact, "f1": f1}


def match(prediction: list[str], answer: list[str]) -> tuple[float, float]:
    """Exact match and F1 with one reference answer. F1 has two decimals, as in the official script."""
    predicted, gold = ([normalize(span) for span in spans] for spans in (prediction, answer))
    exact = float(len(predicted) == len(gold) and set(predicted) == set(gold))
    bags, gold_bags = ([set(span.split()) for span in spans] for spans in (predicted, gold))
    if len(bags) == len(gold_bags) == 1:
        total = _f1(bags[0], gold_bags[0])
    else:
        scores = numpy.array([[_f1(bag, other) for bag in bags] for other in gold_bags])
        total = scores[linear_sum_assignment(scores, maximize=True)].sum() if bags else 0.0
    mean = total / max(len(bags), len(gold_bags))
    return exact, float(numpy.round(mean, 2))


def normalize(span: str) -> str:
    """The span in lower case, split at blanks and hyphens.

    Numbers are written as floats. Punctuation and articles are removed from other words.
    """
    words = (_word(word) for word in _BLANK_OR_HYPHEN.split(span.lower()))
    return " ".join(word for word in words if word)


@functools.lru_cache(
    maxsize=100_000
)  # words repeat, and float() is slow on texts that are no numbers
def _word(word: str) -> str:
    number = _number(word)
    if number is None:
        word = word.translate(_NO_PUNCTUATION)
        number = _number(word)
    text = word if number is None else str(number)
    return " ".join(_ARTICLES.sub(" ", text).split())


@functools.lru_cache(maxsize=100_000)
def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _f1(predicted: set[str], gold: set[str]) -> float:
    numbers = {word for word in gold if _number(word) is not None}
    if numbers and not numbers & predicted:
        return 0.0
    same = len(predicted & gold)
    precision = same / len(predicted) if predicted else 1.0
    recall = same / len(gold) if gold else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
