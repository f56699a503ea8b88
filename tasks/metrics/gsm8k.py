"""GSM8K accuracy: the share of generated solutions whose final number is the reference's.

`accuracy` is the rule of openai/grade-school-math (`is_correct` in grade_school_math/dataset.py): what
follows the first "#### " that stands before digits, periods or commas, compared as a string once its
commas are gone. So "#### 5.0", "#### $5", "####5" and "#### 5." are all wrong where 5 is right.
`accuracy_flexible` compares numbers, and looks for one anywhere: the number after "####", else the last of
the text. Commas, currency signs, units and trailing zeros do not count there.
"""

import re
from decimal import Decimal

import evaluate

from ._info import info

VERSION = "2"

_OFFICIAL = re.compile(r"#### (-?[0-9.,]+)")

# A minus is a sign where neither a word nor a closing bracket stands before it: "7-5" ends in 5.
_NUMBER = r"(?:(?<![\w)])-)?(?:[$£€]-?)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
_ANY = re.compile(_NUMBER)
_MARKED = re.compile(rf"####\s*({_NUMBER})")
_NOT_DECIMAL = str.maketrans("", "", ",$£€")


def official_answer(text: str) -> str | None:
    """What the official script compares, or None where it finds nothing."""
    found = _OFFICIAL.search(text)
    return found[1].replace(",", "") if found else None


def final_number(text: str) -> Decimal | None:
    """The number right after the first "####" that has one, else the last number there is."""
    text = text.replace("\u2212", "-")
    marked = _MARKED.search(text)
    numbers = [marked[1]] if marked else _ANY.findall(text)
    return Decimal(numbers[-1].translate(_NOT_DECIMAL)) if numbers else None


class GSM8K(evaluate.Metric):
    """Predictions are generated texts, references solutions ending in "#### number"."""

    def _info(self) -> evaluate.MetricInfo:
        return info(__doc__, "string", "string")

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        scores = self.per_example(predictions, references)
        return {name: sum(found) / len(found) for name, found in scores.items()}

    def per_example(self, predictions: list[str], references: list[str]) -> dict[str, list[float]]:
        right, flexible = [], []
        for position, (text, reference) in enumerate(zip(predictions, references, strict=True)):
            gold, number = official_answer(reference), final_number(reference)
            if gold is None or number is None:
                raise ValueError(f'gsm8k: the reference of example {position} has no "#### number"')
            right.append(float(official_answer(text) == gold))
            flexible.append(float(final_number(text) == number))
        return {"accuracy": right, "accuracy_flexible": flexible}
