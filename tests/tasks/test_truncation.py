"""At every length the passage alone is cut, down to where not one word of it fits; then the left end goes."""

import re

import pytest
import rendering

from tasks import base

NAMES = rendering.NAMES
CUT = [name for name in NAMES if getattr(base.load(name), "cut", None)]
BY_WORDS = [name for name in CUT if base.load(name).adapter != "masked"]  # that one cuts tokens
PAIRS = [name for name in NAMES if len(getattr(base.load(name), "inputs", ())) == 2]
MODELS = ("tiny-gpt2", "tiny-llama")


def columns(row):
    return {column: [value] for column, value in row.items()}


def encoded(name, row, tokenizer, length):
    """The inputs of one row that trains, whether it was cut, and whether no shorter passage is enough."""
    found = rendering.adapter(name).encode(columns(row), tokenizer, length, True)
    ids = found["input_ids"][0]
    too_long = found.get("needs", [0])[0] > length
    return ids if isinstance(ids[0], list) else [ids], found["truncated"][0], too_long


def lengths(whole):
    """From one that holds all of it down, in some 15 steps."""
    longest = max(map(len, whole))
    return range(longest, 4, -max(1, longest // 15))


def holds(ids, part):
    return any(ids[i : i + len(part)] == part for i in range(len(ids) - len(part) + 1))


@pytest.mark.parametrize("name", CUT)
def test_no_question_hypothesis_or_answer_is_named_to_be_cut(name):
    passages = {"context", "paragraph", "passage", "premise", "sentence", "sentence1", "text"}
    assert base.load(name).cut in passages | {"input"}  # of an instruction


@pytest.mark.sparse
@pytest.mark.parametrize("other", [False, True], ids=["bytes", "other"])
@pytest.mark.parametrize("name", BY_WORDS)
def test_what_is_read_is_the_row_with_a_shorter_passage_and_nothing_else(name, other):
    column = base.load(name).cut
    tokenizer = rendering.tokenizer_of(MODELS[other])
    row = rendering.read_golden(name)["rows"][0]
    row |= {column: " ".join([row[column]] * 3)}
    ends = [match.end() for match in re.finditer(r"\S+", row[column])]
    by_words = [
        encoded(name, {**row, column: row[column][:end]}, tokenizer, rendering.UNCUT)[0]
        for end in ends[:-1]
    ]
    whole, *cut = encoded(name, row, tokenizer, rendering.UNCUT)
    assert cut == [False, False]
    by_words.append(whole)
    left, refused, special = len(ends), False, set(tokenizer.all_special_ids)
    for length in lengths(whole):
        found, cut, too_long = encoded(name, row, tokenizer, length)
        if too_long:
            refused = True
            for ids, shortest in zip(found, by_words[0], strict=True) if cut else ():
                start = int(shortest[0] in special)
                assert len(ids) <= length and ids[:start] == shortest[:start]
                assert ids[start:] == shortest[start:][start - len(ids) :], "its left end alone"
            continue
        assert not refused, "a length that is too short must be so for every shorter one"
        assert max(map(len, found)) <= length
        assert found in by_words, f"at {length} not {column} alone was cut"
        words = max(i for i, one in enumerate(by_words, 1) if one == found)
        assert words <= left and cut == (words < len(ends))
        left = words
    assert refused and left < len(ends)


@pytest.mark.sparse
@pytest.mark.parametrize("model", ["tiny-bert", "tiny-roberta", "tiny-gpt2"])
@pytest.mark.parametrize("name", PAIRS)
def test_of_two_texts_the_longer_is_cut_first(name, model):
    adapter, tokenizer = rendering.adapter(name), rendering.tokenizer_of(model)
    row = rendering.read_golden(name)["rows"][0]
    choice = base.load(name).adapter == "choice"
    shown = row | ({"candidate": adapter.candidates(row, 0)[0]} if choice else {})
    texts = [adapter.texts(columns(shown), text)[0] for text in adapter.config.inputs]
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    # a candidate is never cut; of other texts each is, once neither fits in half of the length
    kept = second if choice else min(first, second, key=len)
    least = len(kept) * (1 if choice else 2) + tokenizer.num_special_tokens_to_add(pair=True) + 1
    tried = 0
    whole, *_ = encoded(name, row, tokenizer, rendering.UNCUT)
    for length in lengths(whole):
        try:
            (ids, *_), cut, too_long = encoded(name, row, tokenizer, length)
        except base.TaskError as error:
            assert length < least and "raise max_length" in str(error)
            break
        if too_long:
            assert choice and length < least
            continue
        if length >= least:
            tried += 1
            assert len(ids) <= length and holds(ids, kept)
        assert cut == (length < max(map(len, whole)))
    assert tried


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-gpt2"])
def test_every_window_on_a_long_context_holds_the_question(model):
    tokenizer = rendering.tokenizer_of(model)
    row = rendering.read_golden("qa/squad")["rows"][0]
    question = tokenizer(row["question"], add_special_tokens=False)["input_ids"]
    for length in (3 * len(question), 4 * len(question)):
        windows, *cut = encoded("qa/squad", row, tokenizer, length)
        assert len(windows) > 1 and all(holds(ids, question) for ids in windows)
        assert cut == [False, False]
