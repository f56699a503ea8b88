"""Perplexity against loops written out, and blocks that hold every token and every word once."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from twin_rows import examples, features, task, twin_rows
from twin_tables import tokenizer_of

from benchmark.models import registry
from tasks import base

MODELS = ["tiny-gpt2", "tiny-opt", "tiny-llama", "tiny-gpt-neo"]


@pytest.fixture(scope="module", params=MODELS)
def family(request):
    source = registry.source(request.param)
    tokenizer = registry.load_tokenizer(source)
    torch.manual_seed(0)
    return registry.load_model(source, "causal_lm", tokenizer.pad_token_id).eval(), tokenizer


@torch.no_grad()
def surprise(model, before, tokens):
    """The negative log-likelihood (nats) of the tokens after those before them, of one sequence alone."""
    logits = model(torch.tensor([before + tokens])).logits[0].log_softmax(-1)
    return -sum(float(logits[len(before) + i - 1, token]) for i, token in enumerate(tokens))


def test_perplexity_of_a_text_equals_a_loop_over_its_tokens(family):
    model, tokenizer = family
    adapter, max_length = task("lm/wikitext2"), 40
    lines = twin_rows(adapter.config, n=12)["text"]
    rows = adapter.arrange({"text": lines}, False, tokenizer, max_length)
    found = features(adapter, rows, tokenizer, max_length)
    predictions = []
    for start in range(0, len(found), 4):
        with torch.inference_mode():
            batch = adapter.collator(tokenizer)(found[start : start + 4])
            predictions += adapter.predict(model, batch, tokenizer)
    scores = adapter.score(predictions, adapter.references(rows))

    tokens = [t for line in lines for t in tokenizer(line, add_special_tokens=False)["input_ids"]]
    assert len(tokens) % (max_length - 1), "the last block is shorter"
    total = 0.0
    for start in range(0, len(tokens), max_length - 1):
        total += surprise(model, [tokenizer.bos_token_id], tokens[start : start + max_length - 1])
    words = sum(len(line.split()) for line in lines)
    assert scores["perplexity"] == pytest.approx(math.exp(total / len(tokens)), rel=1e-4)
    assert scores["word_perplexity"] == pytest.approx(math.exp(total / words), rel=1e-3)
    assert words < len(tokens) and scores.keys() == {"perplexity", "word_perplexity"}


LINES = st.lists(st.text("ab é\n=.", max_size=40), max_size=12)


@settings(max_examples=60, deadline=None)
@given(lines=LINES, max_length=st.integers(2, 17), model=st.sampled_from(MODELS))
def test_blocks_hold_every_token_and_word_once(lines, max_length, model):
    tokenizer, adapter = tokenizer_of(model), task("lm/wikitext2")
    rows = adapter.arrange({"text": [*lines, "end"]}, True, tokenizer, max_length)
    tokens = [
        t
        for line in [*lines, "end"]
        for t in tokenizer(line, add_special_tokens=False)["input_ids"]
    ]
    assert [token for block in rows["tokens"] for token in block] == tokens
    assert {len(block) for block in rows["tokens"][:-1]} <= {max_length - 1}
    assert 0 < len(rows["tokens"][-1]) < max_length
    assert sum(rows["words"]) == sum(len(line.split()) for line in lines) + 1
    assert min(rows["words"]) >= 0
    encoded = adapter.encode(rows, tokenizer, max_length)
    assert all(len(ids) <= max_length for ids in encoded["input_ids"])


def test_a_word_counts_where_it_begins():
    tokenizer, adapter = tokenizer_of("tiny-gpt2"), task("lm/wikitext2")
    line = "zzzzzz zz\n"
    tokens = tokenizer.tokenize(line)
    assert tokens == ["z"] * 6 + ["Ġ", "z", "z", "Ċ"]
    rows = adapter.arrange({"text": [line]}, True, tokenizer, 4)
    assert [len(block) for block in rows["tokens"]] == [3, 3, 3, 1]
    assert rows["words"] == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"texts": ["a"]}, "lm/wikitext2: column text is missing; the data has texts"),
        ({"text": ["a", None]}, "row 1: lm/wikitext2: column text: None is no text"),
    ],
)
def test_bad_rows_are_named(rows, said):
    with pytest.raises(base.TaskError) as raised:
        task("lm/wikitext2").arrange(rows, True, tokenizer_of("tiny-gpt2"), 16)
    assert str(raised.value) == said


@pytest.fixture
def instructions():
    return {
        "instruction": ["Add.", "Name the city."],
        "input": ["", "Alder is in Paris."],
        "output": ["It is 5.", "Paris"],
    }


def test_the_perplexity_of_responses_equals_a_loop_over_theirs(instructions):
    tokenizer, adapter = tokenizer_of("tiny-llama"), task("generation/alpaca")
    source = registry.source("tiny-llama")
    torch.manual_seed(0)
    model = registry.load_model(source, "causal_lm", tokenizer.pad_token_id).eval()
    found = features(adapter, instructions, tokenizer, 128)
    with torch.inference_mode():
        predictions = adapter.predict(model, adapter.collator(tokenizer)(found), tokenizer)
    total, count = 0.0, 0
    for row in base.each(instructions):
        prompt = adapter.render(adapter.config.prompt, row, 0)
        before = tokenizer(prompt)["input_ids"]
        whole = tokenizer(prompt + row["output"])["input_ids"] + [tokenizer.eos_token_id]
        total += surprise(model, before, whole[len(before) :])
        count += len(whole) - len(before)
    scores = adapter.score(predictions, adapter.references(instructions))
    assert adapter.references(instructions) == [3, 1]
    assert scores["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    assert scores["word_perplexity"] == pytest.approx(math.exp(total / 4), rel=1e-3)


def test_less_is_better():
    for name in ("lm/wikitext2", "generation/alpaca"):
        config = base.load(name)
        assert not config.higher_is_better and config.main_key == "perplexity"


def test_only_a_prompt_takes_demonstrations():
    assert task("generation/alpaca").prompted and not task("lm/wikitext2").prompted
    assert task("generation/alpaca").head == task("lm/wikitext2").head == "causal_lm"


def test_training_rows_become_blocks_too():
    adapter, tokenizer = task("lm/wikitext2"), tokenizer_of("tiny-gpt2")
    assert examples(adapter, tokenizer, "train", n=2, max_length=16).keys() == {"tokens", "words"}
