"""Prompts and answers as token ids that fit in max_length.

If a row is too long, its passage (column `cut`) is shortened first, then the prompt is cut from the left. The
answer is never cut.
"""

import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from tasks.base import Adapter

BETWEEN = "\n\n"
"""The text after each demonstration, as `train_sep` in the code of arXiv 2305.17333."""

COUNTED = ("truncated", "needs", "shown")
"""Columns of `Adapter.encode` that are counted and not passed to the model."""


@dataclass(frozen=True)
class Pair:
    """Token ids of a prompt and its answer. `answer`: the number of tokens of the answer.

    `after`: the number of tokens after the answer; not 0 only for a masked prompt that continues after its
    mask.
    """

    ids: list[int]
    answer: int
    after: int = 0

    def without_end(self, tokens: int) -> "Pair":
        """The pair without its last `tokens` ids. At most `after` may be removed."""
        return Pair(self.ids[: len(self.ids) - tokens], self.answer, self.after - tokens)


def pair(prompt: str, answer: str, tokenizer: PreTrainedTokenizerBase) -> Pair:
    """Prompt and answer, tokenised as one text. Blanks at the end of the prompt belong to the answer.

    The answer starts at the first token that differs from the tokens of the prompt alone. The code of
    arXiv 2305.17333 counts the prompt's tokens instead. The result is the same if the joint tokens start with
    the prompt's.
    """
    alone = tokenizer(prompt.rstrip(" "))["input_ids"]
    whole = tokenizer((prompt + answer).rstrip(" "))["input_ids"]
    same = 0
    while same < min(len(alone), len(whole)) and alone[same] == whole[same]:
        same += 1
    return Pair(whole, len(whole) - same)


def length(pair: Pair) -> int:
    """The number of tokens up to the end of the answer."""
    return len(pair.ids) - pair.after


@dataclass(frozen=True)
class Fit:
    """The tokens of a row that fit in max_length: one pair, or one per candidate.

    `truncated`: whether tokens of the row were cut. `needs`: the smallest max_length that fits the prompt,
    with the column `cut` shortened, and the answer. If it is more than max_length, the prompt was cut from
    the left. If the answer alone is too long, `truncated` is False and the pairs must not be used. `shown`:
    the number of demonstrations before the prompt.
    """

    pairs: list[Pair]
    truncated: bool
    needs: int
    shown: int = 0

    def count(self, features: Mapping[str, list[Any]]) -> None:
        """Append this row's values to the columns COUNTED of `features`."""
        for name in COUNTED:
            features[name].append(getattr(self, name))


def fitted(
    encode: Callable[[int, str], list[Pair]],
    pieces: int,
    max_length: int,
    *,
    limit: int | None = None,
    needs: Callable[[Pair], int] = length,
    special: Container[int],
    demonstrations: Sequence[str],
) -> Fit:
    """Fit a row into `max_length` tokens.

    `encode(count, before)` returns the row's pairs: the text `before`, then the prompt with the first `count`
    pieces of the column that may be shortened. `pieces`: the number of pieces (words or tokens) of that
    column, of which at most `limit` are used. `needs` returns the smallest max_length that fits a pair up to
    the end of its answer.

    If the row fits completely, as many of the last `demonstrations` as fit are put before it. Otherwise it is
    cut in up to three steps:
    1. If its answer does not fit, pieces at the end of the column are left out until everything fits or one
       piece is left.
    2. Tokens after the answer that do not fit are cut.
    3. If the answer still does not fit, tokens of the prompt are cut from the left, except `special` tokens
       at its start.
    """

    def longest(pairs: list[Pair]) -> int:
        return max(map(needs, pairs))

    def fits(pairs: list[Pair]) -> bool:
        return max(needs(pair) + pair.after for pair in pairs) <= max_length

    count = pieces if limit is None else min(limit, pieces)
    pairs = encode(count, "")
    if count == pieces and fits(pairs):
        before, shown = preceding(demonstrations, lambda text: fits(encode(count, text)))
        return Fit(encode(count, before) if shown else pairs, False, longest(pairs), shown)
    if count and longest(pairs) > max_length:
        pairs = encode(max(most(count - 1, lambda n: fits(encode(n, ""))), 1), "")
    if longest(pairs) <= max_length:
        beyond = (max(needs(pair) + pair.after - max_length, 0) for pair in pairs)
        cut = [pair.without_end(tokens) for pair, tokens in zip(pairs, beyond, strict=True)]
        return Fit(cut, True, longest(pairs))
    shorter = [
        from_right(pair.without_end(pair.after), special, lambda p: needs(p) <= max_length)
        for pair in pairs
    ]
    cut = [pair for pair in shorter if pair is not None]
    answer_too_long = len(cut) < len(pairs)
    return Fit(pairs if answer_too_long else cut, not answer_too_long, longest(pairs))


def fitted_by_words(
    adapter: Adapter,
    row: Mapping[str, Any],
    encode: Callable[[Mapping[str, Any], str], list[Pair]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    needs: Callable[[Pair], int] = length,
) -> Fit:
    """`fitted` with the words of the task's column `cut` as pieces. Without `cut` there are no pieces.

    `encode(row, before)` returns the pairs of a row, with the text `before` its prompt.
    """
    column = adapter.config.cut
    text = "" if column is None else str(row[column])
    ends = [match.end() for match in re.finditer(r"\S+", text)]

    def of_words(words: int, before: str) -> list[Pair]:
        return encode(
            row if words == len(ends) else {**row, column: text[: ends[words - 1]]}, before
        )

    return fitted(
        of_words,
        len(ends),
        max_length,
        needs=needs,
        special=set(tokenizer.all_special_ids),
        demonstrations=adapter.demonstrations,
    )


def from_right(pair: Pair, special: Container[int], fits: Callable[[Pair], bool]) -> Pair | None:
    """The pair with as many of the prompt's last tokens as fit; None if not even one fits.

    Special tokens at the start of the prompt stay, as in the code of arXiv 2305.17333.
    """
    prompt = len(pair.ids) - pair.answer
    first = next((at for at in range(prompt) if pair.ids[at] not in special), prompt)

    def last(tokens: int) -> Pair:
        return Pair(pair.ids[:first] + pair.ids[prompt - tokens :], pair.answer)

    tokens = most(prompt - first, lambda tokens: fits(last(tokens)))
    return last(tokens) if tokens else None


def preceding(demonstrations: Sequence[str], fits: Callable[[str], bool]) -> tuple[str, int]:
    """The text before a prompt, with as many of the last demonstrations as fit, and their number.

    The code of arXiv 2305.17333 cuts the first demonstration in the middle instead.
    """

    def before(last: int) -> str:
        chosen = demonstrations[len(demonstrations) - last :]
        return "".join(text.strip() + BETWEEN for text in chosen)

    shown = most(len(demonstrations), lambda last: fits(before(last)))
    return before(shown), shown


def ending(text: str, room: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """The longest end of the text that has at most `room` tokens."""

    def last(characters: int) -> str:
        return text[len(text) - characters :].lstrip()

    def fits(characters: int) -> bool:
        return len(tokenizer(last(characters), add_special_tokens=False)["input_ids"]) <= room

    return last(most(len(text), fits))


def most(count: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `count` for which `fits` is true, by bisection; 0 if there is none.

    If `fits` is true for a number, it must be true for all smaller ones.
    """
    some, too_many = 0, count + 1
    trial = count  # tried first, because usually everything fits
    while too_many - some > 1:
        if fits(trial):
            some = trial
        else:
            too_many = trial
        trial = (some + too_many) // 2
    return some
