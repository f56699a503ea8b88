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
    """Token ids of a prompt and its answer, which is `answer` tokens long and never cut.

    `after`: tokens behind the answer, where a prompt goes on after its mask.
    """

    ids: list[int]
    answer: int
    after: int = 0

    def without_end(self, tokens: int) -> "Pair":
        """The pair less its last `tokens`, which are all `after` the answer."""
        return Pair(self.ids[: len(self.ids) - tokens], self.answer, self.after - tokens)


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
    """The tokens up to the end of the answer."""
    return len(pair.ids) - pair.after


@dataclass(frozen=True)
class Fit:
    """What is read of a row: a pair, or one for each candidate.

    `truncated`: some of the row is not read. `needs`: the least max_length that holds the answer and the
    prompt before it, with the column `cut` shortened. Where this is more than there is, tokens of the prompt
    are cut from the left. Where the answer alone is too long, nothing helps: `truncated` is false and the
    pairs are of no use. `shown`: how many demonstrations stand before the prompt.
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
    encode: Callable[[int, str], list[Pair]],
    pieces: int,
    max_length: int,
    *,
    limit: int | None = None,
    needs: Callable[[Pair], int] = length,
    special: Container[int],
    demonstrations: Sequence[str],
) -> Fit:
    """A row in at most `max_length` tokens.

    `encode(kept, before)` gives the row's pairs: the text `before`, then the prompt with the first `kept` of
    the `pieces` (words, or tokens) of the column that may be shortened. No more than `limit` of these are
    read. `needs` is the least max_length that holds a pair up to the end of its answer.

    A row that fits whole has the last demonstrations that fit before it. From another row these are cut until
    the answer fits: what stands after it; pieces of the column, until all fits, down to one; tokens of the
    prompt from the left, except `special` ones at its start.
    """

    def of_all(pairs: list[Pair]) -> int:
        return max(map(needs, pairs))

    def fits(pairs: list[Pair]) -> bool:
        return max(needs(pair) + pair.after for pair in pairs) <= max_length

    kept = pieces if limit is None else min(limit, pieces)
    pairs = encode(kept, "")
    if kept == pieces and fits(pairs):
        before, shown = preceding(demonstrations, lambda text: fits(encode(kept, text)))
        return Fit(encode(kept, before) if shown else pairs, False, of_all(pairs), shown)
    if kept and of_all(pairs) > max_length:
        pairs = encode(max(most(kept - 1, lambda n: fits(encode(n, ""))), 1), "")
    if of_all(pairs) <= max_length:
        beyond = (max(needs(pair) + pair.after - max_length, 0) for pair in pairs)
        cut = [pair.without_end(tokens) for pair, tokens in zip(pairs, beyond, strict=True)]
        return Fit(cut, True, of_all(pairs))
    shorter = [
        from_right(pair.without_end(pair.after), special, lambda p: needs(p) <= max_length)
        for pair in pairs
    ]
    left = [pair for pair in shorter if pair is not None]
    whole = len(left) < len(pairs)
    return Fit(pairs if whole else left, not whole, of_all(pairs))


def fitted_by_words(
    adapter: Adapter,
    row: Mapping[str, Any],
    encode: Callable[[Mapping[str, Any], str], list[Pair]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    needs: Callable[[Pair], int] = length,
) -> Fit:
    """`fitted` by words of the column `cut` of the adapter's task, where it has one.

    `encode(row, before)` gives the pairs of a row.
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
