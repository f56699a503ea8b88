"""The five scores of the official e2e-metrics: BLEU, NIST, METEOR, ROUGE_L and CIDEr.

There is one prediction per meaning representation, with all of its references. BLEU and NIST are those of the
official Python port of mteval-v13a (option -p), the others those of COCO's caption evaluation. NIST is up to
about 10, CIDEr 0 to 10, the others 0 to 1. METEOR, ROUGE_L and CIDEr require Java and pycocoevalcap.
"""

import warnings
from concurrent.futures import ThreadPoolExecutor

import datasets
import evaluate
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from ._info import info
from ._jackknife import values
from ._java import meteor, missing, tokenize
from ._ngrams import Segments, bleu, bleu_sums_and_nist, cider

VERSION = "1"


class E2E(evaluate.Metric):
    """Predictions are texts, references lists of texts."""

    def _info(self) -> evaluate.MetricInfo:
        return info(__doc__, "string", datasets.List(datasets.Value("string")))

    def unavailable(self) -> dict[str, str]:
        """The scores that cannot be computed here, each with the reason."""
        reason = missing()
        return dict.fromkeys(("METEOR", "ROUGE_L", "CIDEr"), reason) if reason else {}

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        if [] in references:
            raise ValueError(f"e2e: example {references.index([])} has no reference")
        predictions, references = _one_line_each(predictions, references)
        if gaps := self.unavailable():
            names, reason = ", ".join(gaps), next(iter(gaps.values()))
            warnings.warn(f"e2e: without {names}: {reason}", stacklevel=2)
            return _mteval(predictions, references)
        texts = iter(tokenize([*predictions, *(text for group in references for text in group)]))
        ours = [next(texts) for _ in predictions]
        theirs = [[next(texts) for _ in group] for group in references]
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(
                meteor, ours, theirs
            )  # the slowest part; it runs in a separate process
            scores = _mteval(predictions, references)
            scores["ROUGE_L"] = sum(map(_rouge_l, ours, theirs)) / len(ours)
            scores["CIDEr"] = cider(Segments(ours, theirs))
            scores["METEOR"] = waiting.result()
        return scores

    def per_example(
        self, predictions: list[str], references: list[list[str]]
    ) -> dict[str, list[float]]:
        """For BLEU only. NIST and CIDEr weight an n-gram by all references, so their sums cannot be split
        into examples. METEOR and ROUGE_L would have to run the Java programs again."""
        sums, _ = bleu_sums_and_nist(_segments(*_one_line_each(predictions, references)))
        return {"BLEU": values(sums, bleu)}


def _one_line_each(
    predictions: list[str], references: list[list[str]]
) -> tuple[list[str], list[list[str]]]:
    """The texts without line breaks, because the Java programs read one text per line."""
    ours = [" ".join(text.split()) for text in predictions]
    return ours, [[" ".join(text.split()) for text in texts] for texts in references]


def _segments(predictions: list[str], references: list[list[str]]) -> Segments:
    """The texts, tokenised as in mteval-v13a and in lower case."""
    cut = Tokenizer13a()
    ours = [cut(text).lower().split(" ") for text in predictions]
    return Segments(
        ours, [[cut(text).lower().split(" ") for text in texts] for texts in references]
    )


def _mteval(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    sums, nist = bleu_sums_and_nist(_segments(predictions, references))
    return {"BLEU": float(bleu(sums.sum(axis=0))), "NIST": nist}


def _rouge_l(prediction: list[str], references: list[list[str]]) -> float:
    """COCO's ROUGE-L: the F-score (beta 1.2) of the best precision and best recall over the references."""
    ours = prediction or [""]  # the official script reads an empty text as one empty word
    common = [(_common(ours, theirs or [""]), len(theirs) or 1) for theirs in references]
    precision = max(length for length, _ in common) / len(ours)
    recall = max(length / total for length, total in common)
    beta = 1.2**2
    return (1 + beta) * precision * recall / (recall + beta * precision) if precision else 0.0


def _common(first: list[str], second: list[str]) -> int:
    """The length of the longest common subsequence, with Hyyrö's bit-vector algorithm."""
    places: dict[str, int] = {}
    for position, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << position
    everywhere = (1 << len(first)) - 1
    unmatched = everywhere
    for word in second:
        match = unmatched & places.get(word, 0)
        unmatched = (unmatched + match | unmatched - match) & everywhere
    return len(first) - unmatched.bit_count()
