"""GSM8K accuracy: the share of generated solutions whose final number is the reference's.

`accuracy` follows openai/grade-school-math (`is_correct` in grade_school_math/dataset.py). It takes the
digits, periods and commas after the first "#### " that has them, removes the commas, and compares strings. So
"#### 5.0", "#### $5", "####5" and "#### 5." are all wrong if 5 is right. `accuracy_flexible` compares
numbers: the number after "####", or else the last number of the text. Commas, currency signs, units and
trailing zeros are ignored.
"""

import re
from decimal import Decimal

import evaluate

from ._info import info

VERSION = "2"

_OFFICIAL = re.compile(r"#### (-?[0-9.,]+)")

# A minus is a sign unless it follows a word or a closing bracket: "7-5" ends in 5.
_NUMBER = r"(?:(?<![\w)])-)?(?:[$£€]-?)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
_ANY = re.compile(_NUMBER)
_MARKED = re.compile(rf"####\s*({_NUMBER})")
_NOT_DECIMAL = str.maketrans("", "", ",$£€")


def official_answer(text: str) -> str | None:
    """The answer that the official script extracts; None if there is none."""
    match = _OFFICIAL.search(text)
    return match[1].replace(",", "") if match else None


def final_number(text: str) -> Decimal | None:
    """The number after the first "####" that has one, else the last number; None if there is no number."""
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
        return {name: sum(values) / len(values) for name, values in scores.items()}

    def per_example(self, predictions: list[str], references: list[str]) -> dict[str, list[float]]:
        right, flexible = [], []
        for position, (text, reference) in enumerate(zip(predictions, references, strict=True)):
            gold, number = official_answer(reference), final_number(reference)
            if gold is None or number is None:
                raise ValueError(f'gsm8k: the reference of example {position} has no "#### number"')
            right.append(float(official_answer(text) == gold))
            flexible.append(float(final_number(text) == number))
        return {"accuracy": right, "accuracy_flexible": flexible}
