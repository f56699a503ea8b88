"""A prompt and the answer after it, as tokens that fit: the passage is cut where needed, nothing else."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from tasks.base import Adapter, TaskError

BETWEEN = "\n\n"
"""After each demonstration, as `train_sep` in arXiv 2305.17333's code."""


@dataclass(frozen=True)
class Pair:
    """Token ids of prompt and answer together, and how many of the last ones are the answer."""

    ids: list[int]
    answer: int


def pair(prompt: str, answer: str, tokenizer: PreTrainedTokenizerBase) -> Pair:
    """The two read as one text, as the model will see it; blanks at the end of the prompt go to the answer.

    The answer starts at the first token that differs from the prompt's own (arXiv 2305.17333's code counts
    tokens, which is the same where the prompt's tokens begin the whole).
    """
    alone = tokenizer(prompt.rstrip(" "))["input_ids"]
    whole = tokenizer((prompt + answer).rstrip(" "))["input_ids"]
    same = 0
    while same < min(len(alone), len(whole)) and alone[same] == whole[same]:
        same += 1
    return Pair(whole, len(whole) - same)


def fitted(
    adapter: Adapter,
    row: Mapping[str, Any],
    at: int,
    cut: str | None,
    encode: Callable[[Mapping[str, Any]], list[Pair]],
    too_long: Callable[[list[Pair]], bool],
) -> tuple[list[Pair], bool]:
    """`encode(row)`, and whether the column `cut` had to lose words from its end first.

    Raises TaskError naming the row, when even one word of the column leaves it too long.
    """
    pairs = encode(row)
    if not too_long(pairs):
        return pairs, False
    name = adapter.config.name
    longest = max(len(pair.ids) for pair in pairs)
    if cut is None:
        raise TaskError(f"{name}: {longest} tokens do not fit: raise max_length", at)
    ends = [match.end() for match in re.finditer(r"\S+", row[cut])]
    fits, fails = 0, len(ends)
    while fails - fits > 1:  # the number of words that fit lies between
        middle = (fits + fails) // 2
        if too_long(encode({**row, cut: row[cut][: ends[middle - 1]]})):
            fails = middle
        else:
            fits = middle
    if not fits:
        raise TaskError(
            f"{name}: column {cut}: not one word of it fits beside the rest: raise max_length", at
        )
    return encode({**row, cut: row[cut][: ends[fits - 1]]}), True


def preceded(
    demonstrations: Sequence[str],
    alone: list[Pair],
    encode: Callable[[str], list[Pair]],
    too_long: Callable[[list[Pair]], bool],
) -> tuple[list[Pair], int]:
    """`encode(before)` with as many of the last demonstrations before the prompt as fit, and their number;
    `alone` is what fits without any.

    arXiv 2305.17333's code cuts the first one in the middle instead.
    """
    kept, fits, fails = alone, 0, len(demonstrations) + 1
    trial = len(demonstrations)  # mostly all of them fit
    while fails - fits > 1:
        chosen = demonstrations[len(demonstrations) - trial :]
        pairs = encode("".join(text.strip() + BETWEEN for text in chosen))
        if too_long(pairs):
            fails = trial
        else:
            kept, fits = pairs, trial
        trial = (fits + fails) // 2
    return kept, fits
