"""Answers after a prompt: what is learnt, token by token, against transformers' loss on single sequences."""

import pytest
import rendering
import torch
from transformers import AutoModelForCausalLM, GPT2Config
from twin_rows import examples, features, task
from twin_tables import tokenizer_of

from benchmark.models import registry
from tasks import base

NAMES = [n for n in rendering.NAMES if base.load(n).adapter in ("generation", "response")]
TOKENIZERS = ["GPT-2's own", "tiny-gpt2", "tiny-opt", "tiny-llama"]
LONG = 1024  # no twin's row is cut


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request):
    if request.param in registry.MODELS:
        return tokenizer_of(request.param)
    return request.getfixturevalue("gpt2")


def rendered(adapter, row):
    """Prompt, answer and ending of a row, as texts."""
    config = adapter.config
    stop = getattr(config, "stop", None)
    answer = adapter.render(config.answer, row, 0) + (stop or "")
    return adapter.render(config.prompt, row, 0), answer, stop is None


@pytest.mark.sparse
@pytest.mark.parametrize("name", NAMES)
def test_the_answer_and_its_ending_are_learnt_and_no_token_of_the_prompt(tokenizer, name):
    adapter = task(name)
    rows = examples(adapter, tokenizer, n=5)
    for row, found in zip(base.each(rows), features(adapter, rows, tokenizer, LONG), strict=True):
        prompt, answer, end_token = rendered(adapter, row)
        ids, n = found["input_ids"], found["answer_lengths"]
        whole = tokenizer(prompt + answer)["input_ids"]
        assert ids == whole + [tokenizer.eos_token_id] * end_token
        assert ids[:-n] == tokenizer(prompt)["input_ids"], "a prompt that no answer has changed"
        learnt = ids[-n:-1] if end_token else ids[-n:]
        assert tokenizer.decode(learnt).lstrip(" ") == answer.lstrip(" ")


@pytest.mark.parametrize("name", NAMES)
def test_no_blank_slips(name):
    adapter = task(name)
    for row in base.each(examples(adapter, tokenizer_of("tiny-gpt2"), n=20)):
        prompt, answer, _ = rendered(adapter, row)
        text = prompt + answer
        assert "  " not in text and " \n" not in text and "\n " not in text
        assert not prompt.endswith(" ") and text.strip(" ") == text


EXPECTED = {
    "generation/e2e_nlg": (
        {"meaning_representation": "name[Aromi], food[Thai]", "human_reference": "Thai at Aromi ."},
        "name[Aromi], food[Thai] ### Thai at Aromi .",
    ),
    "generation/dart": (
        {
            "tripleset": [["Aromi", "FOOD", "Thai"], ["Aromi", "CITY", "Bonn"]],
            "target": "Thai.",
            "references": [],
        },
        "Aromi : FOOD : Thai | Aromi : CITY : Bonn ### Thai.",
    ),
    "generation/web_nlg": (
        {
            "input": ["Bonn | country | Germany", "Bonn | river | Rhine"],
            "target": "Bonn.",
            "references": [],
        },
        "Bonn : country : Germany | Bonn : river : Rhine ### Bonn.",
    ),
    "generation/gsm8k": (
        {"question": "What is 2 + 3?", "answer": "<<2+3=5>>5\n#### 5"},
        "Question: What is 2 + 3?\nAnswer: <<2+3=5>>5\n#### 5",
    ),
    "generation/squad": (
        {"context": "It was red.", "question": "Which? ", "answers": {"text": ["red", "Red"]}},
        "Context: It was red.\nQuestion: Which?\nAnswer: red",
    ),
    "mezo/squad": (
        {
            "title": "A_B",
            "context": "It was red.",
            "question": " Which?",
            "answers": {"text": ["red", "Red"]},
        },
        "Title: A_B\nContext: It was red.\nQuestion: Which?\nAnswer: red\n",
    ),
    "generation/drop": (
        {"passage": "Two, 3.", "question": "Which?", "answers_spans": {"spans": ["two", "3"]}},
        "Passage: Two, 3.\nQuestion: Which?\nAnswer: two; 3",
    ),
    "mezo/drop": (
        {"passage": "Two, 3.", "question": "Which?", "answers_spans": {"spans": ["two", "3"]}},
        "Passage: Two, 3.\nQuestion: Which?\nAnswer: two\n",
    ),
    "generation/alpaca": (
        {"instruction": "Add.", "input": "2, 3", "output": "\n5"},
        "Below is an instruction that describes a task, paired with an input that provides further context."
        " Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n2, 3\n\n### Response:\n5",
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_text_of_a_row(name):
    row, text = EXPECTED[name]
    prompt, answer, _ = rendered(task(name), row)
    assert prompt + answer == text


def test_an_instruction_without_an_input_says_nothing_of_one():
    row = {"instruction": "Say five.", "input": "", "output": "5"}
    assert "".join(rendered(task("generation/alpaca"), row)[:2]) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the"
        " request.\n\n### Instruction:\nSay five.\n\n### Response:\n5"
    )


def own_loss(model, ids, n):
    """transformers' loss of one sequence alone, its last `n` tokens labelled, as a sum."""
    labels = torch.tensor([[-100] * (len(ids) - n) + ids[-n:]])
    with torch.no_grad():
        return float(model(torch.tensor([ids]), labels=labels).loss) * n


@pytest.mark.sparse
@pytest.mark.parametrize("model_name", ["tiny-gpt2", "tiny-opt", "tiny-llama", "tiny-gpt-neo", ""])
@pytest.mark.parametrize("name", ["generation/dart", "mezo/squad"])
def test_the_loss_is_transformers_own_over_the_answers_tokens(request, model_name, name):
    torch.manual_seed(0)
    if model_name:
        tokenizer = tokenizer_of(model_name)
        source = registry.source(model_name)
        model = registry.load_model(source, "causal_lm", tokenizer.pad_token_id).eval()
    else:  # the end token pads
        tokenizer = request.getfixturevalue("gpt2")
        config = GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=len(tokenizer))
        model = AutoModelForCausalLM.from_config(config).eval()
    adapter = task(name)
    found = features(adapter, examples(adapter, tokenizer, n=4), tokenizer)
    lengths = {len(f["input_ids"]) for f in found}
    assert len(lengths) > 1, "some are padded"
    expected = sum(own_loss(model, f["input_ids"], f["answer_lengths"]) for f in found)
    tokens = sum(f["answer_lengths"] for f in found)
    loss = adapter.loss(model, adapter.collator(tokenizer)(found))
    assert loss.requires_grad
    assert float(loss.detach()) == pytest.approx(expected / tokens, rel=1e-5)


@pytest.mark.parametrize("model_name", ["tiny-gpt2", "tiny-opt", "tiny-llama", "tiny-gpt-neo"])
def test_padding_on_either_side_gives_the_same_loss(model_name):
    tokenizer, adapter = tokenizer_of(model_name), task("generation/dart")
    torch.manual_seed(0)
    source = registry.source(model_name)
    model = registry.load_model(source, "causal_lm", tokenizer.pad_token_id).eval()
    found = features(adapter, examples(adapter, tokenizer, n=4), tokenizer)
    longest = max(len(f["input_ids"]) for f in found)
    right = {"input_ids": [], "attention_mask": [], "labels": []}
    for f in found:
        ids, n = f["input_ids"], f["answer_lengths"]
        pad = longest - len(ids)
        right["input_ids"].append(ids + [tokenizer.pad_token_id] * pad)
        right["attention_mask"].append([1] * len(ids) + [0] * pad)
        right["labels"].append([-100] * (len(ids) - n) + ids[-n:] + [-100] * pad)
    with torch.no_grad():
        expected = model(**{name: torch.tensor(rows) for name, rows in right.items()}).loss
        loss = adapter.loss(model, adapter.collator(tokenizer)(found))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_the_passage_is_cut_and_never_the_question_or_the_answer(tokenizer):
    adapter = task("generation/squad")
    rows = {
        "context": ["It was red and so on . " * 60, "It was red ."],
        "question": ["Which colour was it ?"] * 2,
        "answers": [{"text": ["red and so on"]}, {"text": ["red"]}],
    }
    encoded = adapter.encode(rows, tokenizer, 90)
    assert encoded["truncated"] == [True, False] and encoded["new_tokens"] == [45, 45]
    ids, n = encoded["input_ids"][0], encoded["answer_lengths"][0]
    assert 36 < len(ids) - n <= 45, "what is generated has room"
    assert (
        tokenizer.decode(ids, skip_special_tokens=True)
        .strip()
        .startswith("Context: It was red and")
    )
    assert "\nQuestion: Which colour was it ?\nAnswer: red and so on" in tokenizer.decode(ids)


def test_demonstrations_stand_before_the_prompt_as_many_as_leave_room():
    tokenizer, adapter = tokenizer_of("tiny-gpt2"), task("mezo/drop")
    rows = {
        "passage": ["It was red ."],
        "question": ["Which ?"],
        "answers_spans": [{"spans": ["red"]}],
    }
    (shown,) = adapter.demonstrated(rows)
    assert shown == "Passage: It was red .\nQuestion: Which ?\nAnswer: red"
    alone = adapter.encode(rows, tokenizer, 512)["input_ids"][0]
    adapter.demonstrations = [shown] * 3
    whole = f"{shown}\n\n" * 2 + f"{shown}\n"
    ids = tokenizer(whole)["input_ids"]
    room = len(ids) - 2 + 50  # the answer's two tokens are within the 50 that are left free
    encoded = adapter.encode(rows, tokenizer, room)
    assert encoded["input_ids"] == [ids] and encoded["shown"] == [2]
    assert encoded["truncated"] == [False]
    assert adapter.encode(rows, tokenizer, 512)["shown"] == [3]
    assert adapter.encode(rows, tokenizer, len(alone) - 2 + 50)["shown"] == [0]


USUAL = {
    "generation/e2e_nlg": {
        "meaning_representation": ["name[A]", "name[B]"],
        "human_reference": ["A .", "B ."],
    },
    "generation/squad": {
        "context": ["a", "b"],
        "question": ["q", "r"],
        "answers": [{"text": ["a"]}, {"text": ["b"]}],
    },
    "generation/dart": {
        "tripleset": [[["a", "b", "c"]]] * 2,
        "target": ["a", "b"],
        "references": [[], []],
    },
}


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        (
            "generation/e2e_nlg",
            {"human_reference": ["A .", "\n"]},
            "row 1: generation/e2e_nlg: column human_reference: empty text '\\n'",
        ),
        (
            "generation/e2e_nlg",
            {"meaning_representation": ...},
            "generation/e2e_nlg: column meaning_representation is missing; the data has",
        ),
        (
            "generation/squad",
            {"answers": [{"text": ["a"]}, {"text": []}]},
            "row 1: generation/squad: column answers.text: empty text []",
        ),
        (
            "generation/squad",
            {"answers": [{"text": ["a"]}, {}]},
            "row 1: generation/squad: column answers.text is missing",
        ),
        (
            "generation/dart",
            {"tripleset": [[["a", "b", "c"]], []]},
            "row 1: generation/dart: column tripleset: empty text []",
        ),
    ],
)
def test_a_bad_row_is_named(name, changes, said):
    rows = {column: v for column, v in (USUAL[name] | changes).items() if v is not ...}
    with pytest.raises(base.TaskError) as raised:
        task(name).encode(rows, tokenizer_of("tiny-gpt2"), 60)
    assert str(raised.value).startswith(said)
