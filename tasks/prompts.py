"""A prompt and the answer after it, as tokens that fit: the passage is cut where needed, then the prompt from
the left; the answer never is."""

import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from tasks.base import Adapter

BETWEEN = "\n\n"
"""After each demonstration, as `train_sep` in arXiv 2305.17333's code."""

COUNTED = ("truncated", "needs", "shown")
"""The columns that `Adapter.encode` makes for counting, not for the model."""


@dataclass(frozen=True)
class Pair:
    """Token ids of prompt and answer together, and how many of the last ones are the answer, which is never
    cut."""

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


def length(pair: Pair) -> int:
    """The tokens of both."""
    return len(pair.ids)


@dataclass(frozen=True)
class Fit:
    """What is read of a row: a pair, or one for each candidate.

    `needs`: the least max_length that holds the row, its column `cut` shortened where it has one. Where this
    is more than there is, tokens of the prompt are cut from the left; where even that does not help, because
    the answer alone is too long, `truncated` is false and the pairs are of no use. `shown`: how many
    demonstrations stand before the prompt.
    """

    pairs: list[Pair]
    truncated: bool
    needs: int
    shown: int = 0

    def count(self, features: Mapping[str, list[Any]]) -> None:
        """Append to the columns COUNTED of `features`."""
        for name in COUNTED:
            features[name].append(getattr(self, name))


def fitted(
    adapter: Adapter,
    row: Mapping[str, Any],
    encode: Callable[..., list[Pair]],
    needs: Callable[[Pair], int],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> Fit:
    """`encode(row)` where it fits, with the last demonstrations that fit before its prompt; otherwise with
    fewer words of the column `cut`, and if that is not enough with fewer tokens of the prompt.

    `encode` takes the text before the prompt as well; `needs` is the least max_length that holds a pair.
    """

    def of_all(pairs: list[Pair]) -> int:
        return max(map(needs, pairs))

    def fits(pairs: list[Pair]) -> bool:
        return of_all(pairs) <= max_length

    column = adapter.config.cut
    pairs = encode(row)
    if fits(pairs):
        before, shown = preceding(adapter.demonstrations, lambda text: fits(encode(row, text)))
        return Fit(encode(row, before) if shown else pairs, False, of_all(pairs), shown)
    if column is not None:
        ends = [match.end() for match in re.finditer(r"\S+", row[column])]

        def first(words: int) -> list[Pair]:
            return encode({**row, column: row[column][: ends[words - 1]]})

        words = most(len(ends) - 1, lambda n: fits(first(n)))
        pairs = first(max(words, 1)) if ends else pairs
        if words:
            return Fit(pairs, True, of_all(pairs))
    special = set(tokenizer.all_special_ids)
    shorter = [from_right(pair, special, lambda p: needs(p) <= max_length) for pair in pairs]
    left = [pair for pair in shorter if pair is not None]
    whole = len(left) < len(pairs)
    return Fit(pairs if whole else left, not whole, of_all(pairs))


def from_right(pair: Pair, special: Container[int], fits: Callable[[Pair], bool]) -> Pair | None:
    """The pair with as many of the prompt's last tokens as fit; None where not one does.

    Special tokens before the prompt stay, as in arXiv 2305.17333's code (microsoft/LoRA's GPT-2 has none).
    """
    prompt = len(pair.ids) - pair.answer
    first = next((at for at in range(prompt) if pair.ids[at] not in special), prompt)

    def last(tokens: int) -> Pair:
        return Pair(pair.ids[:first] + pair.ids[prompt - tokens :], pair.answer)

    tokens = most(prompt - first, lambda tokens: fits(last(tokens)))
    return last(tokens) if tokens else None


def preceding(demonstrations: Sequence[str], fits: Callable[[str], bool]) -> tuple[str, int]:
    """The text before a prompt: as many of the last demonstrations as fit, and their number.

    arXiv 2305.17333's code cuts the first one in the middle instead.
    """

    def before(last: int) -> str:
        chosen = demonstrations[len(demonstrations) - last :]
        return "".join(text.strip() + BETWEEN for text in chosen)

    shown = most(len(demonstrations), lambda last: fits(before(last)))
    return before(shown), shown


def ending(text: str, room: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """The end of the text that has at most `room` tokens."""

    def last(characters: int) -> str:
        return text[len(text) - characters :].lstrip()

    def fits(characters: int) -> bool:
        return len(tokenizer(last(characters), add_special_tokens=False)["input_ids"]) <= room

    return last(most(len(text), fits))


def most(count: int, fits: Callable[[int], bool]) -> int:
    """The most of `count` for which `fits`; 0 where not even one does. Fewer always fit as well."""
    some, too_many = 0, count + 1
    trial = count  # mostly all of them fit
    while too_many - some > 1:
        if fits(trial):
            some = trial
        else:
            too_many = trial
        trial = (some + too_many) // 2
    return some
