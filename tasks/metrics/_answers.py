"""Exact match and token F1 as in SQuAD's official script. ReCoRD's script computes the same."""

import re
import string
from collections import Counter

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """The text in lower case, without ASCII punctuation and articles, with single blanks between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def best_match(prediction: str, answers: list[str]) -> tuple[bool, float]:
    """Exact match and token F1, each with the answer for which it is highest.

    An empty list means that the question has no answer (SQuAD 2). Then only a prediction that is empty after
    normalisation is right.
    """
    predicted = normalize(prediction)
    if not answers:
        return not predicted, float(not predicted)
    golds = [normalize(answer) for answer in answers]
    if (
        predicted in golds
    ):  # the F1 of an answer of nothing but articles is 0 in the official script
        return True, float(any(predicted == gold and gold for gold in golds))
    return False, max(_f1(predicted.split(), gold.split()) for gold in golds)


def _f1(predicted: list[str], gold: list[str]) -> float:
    same = (Counter(predicted) & Counter(gold)).total()
    return 2 * same / (len(predicted) + len(gold)) if same else 0.0


def best_matches(predictions: list[str], references: list[list[str]]) -> dict[str, list[float]]:
    """The results of `best_match` for all examples, by name of the score."""
    matches = [best_match(p, r) for p, r in zip(predictions, references, strict=True)]
    exact, f1 = zip(*matches, strict=True)
    return {"exact_match": [float(match) for match in exact], "f1": list(f1)}
