"""Demonstrations before a prompt, against the texts written out as MeZO's code joins them."""

import pytest
import rendering
from twin_rows import examples, task
from twin_tables import tokenizer_of

from tasks import base

PROMPTED = [  # what is generated needs room as well: test_generation.py
    name for name in rendering.NAMES if base.load(name).adapter in ("candidates", "masked")
]


def encoded(adapter, rows, tokenizer, max_length=128):
    return adapter.encode(rows, tokenizer, max_length)


def longest_of(found):
    """Tokens of the longest input of all rows."""
    rows = found["input_ids"]
    return max(len(ids) for row in rows for ids in (row if isinstance(row[0], list) else [row]))


def test_the_text_is_prompt_and_right_answer():
    adapter = task("mezo/sst2")
    rows = {"sentence": ["a fine film .", "what a bore "], "label": [1, 0]}
    assert adapter.demonstrated(rows) == [
        "a fine film . It was great",
        "what a bore It was terrible",
    ]


@pytest.mark.parametrize("model", ["tiny-gpt2", "tiny-llama"])
def test_they_stand_before_the_prompt_with_a_blank_line_after_each(model):
    tokenizer = tokenizer_of(model)
    adapter = task("mezo/sst2")
    rows = {"sentence": ["dull and slow ."], "label": [0]}
    plain = encoded(adapter, rows, tokenizer)
    adapter.demonstrations = ["a fine film . It was great\n", " what a bore It was terrible"]
    found = encoded(adapter, rows, tokenizer)
    shots = "a fine film . It was great\n\nwhat a bore It was terrible\n\n"
    whole = [f"{shots}dull and slow . It was {word}" for word in ("terrible", "great")]
    assert found["input_ids"] == [[tokenizer(text)["input_ids"] for text in whole]]
    assert found["shown"] == [2] and plain["shown"] == [0]
    for same in ("answer_lengths", "labels", "truncated"):
        assert found[same] == plain[same]


@pytest.mark.parametrize("name", PROMPTED)
def test_a_tasks_own_rows_can_be_shown_and_the_last_that_fit_are(name):
    tokenizer = tokenizer_of("tiny-gpt2" if task(name).head == "causal_lm" else "tiny-roberta")
    rows = examples(task(name), tokenizer, n=2, max_length=1024)
    shown = task(name).demonstrated(examples(task(name), tokenizer, "train", n=5, max_length=512))
    adapter = task(name)
    least = longest_of(encoded(adapter, rows, tokenizer, 1024))
    adapter.demonstrations = shown
    most = longest_of(encoded(adapter, rows, tokenizer, 4096))
    seen = set()
    for max_length in range(least, most + 1, (most - least) // 6):
        found = encoded(adapter, rows, tokenizer, max_length)
        for row, count in enumerate(found["shown"]):
            seen.add(count)
            inputs = found["input_ids"][row]
            sequences = inputs if isinstance(inputs[0], list) else [inputs]
            longest = longest_of({"input_ids": [inputs]})
            assert longest <= max_length
            text = tokenizer.decode(sequences[0], skip_special_tokens=True)
            expected = "".join(f"{t.strip()}\n\n" for t in shown[len(shown) - count :])
            assert text.startswith(expected)
            if count < len(shown) and not found["truncated"][row]:
                # one more would have been too long: it, and the blank line
                more = len(tokenizer(shown[-1 - count].strip() + "\n\n")["input_ids"])
                assert longest + more > max_length - 2
    assert len(seen) > 2


def test_what_is_cut_for_length_gets_none():
    tokenizer = tokenizer_of("tiny-gpt2")
    adapter = task("mezo/sst2")
    adapter.demonstrations = ["a It was great"]
    found = encoded(adapter, {"sentence": ["good " * 300], "label": [1]}, tokenizer, 64)
    assert found["truncated"] == [True] and found["shown"] == [0]


def test_only_a_prompt_takes_them():
    assert not task("glue/sst2").prompted
