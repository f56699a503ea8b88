"""Choice by likelihood against a loop without batches, padding or the suite's code."""

import pytest
import rendering
import torch
from twin_rows import examples, features, task
from twin_tables import tokenizer_of

from benchmark.models import registry
from tasks import base, batches

NAMES = ["mezo/sst2", "mezo/cb", "mezo/copa", "mezo/record"]


@pytest.fixture(scope="module", params=["tiny-gpt2", "tiny-opt", "tiny-llama", "tiny-gpt-neo"])
def family(request):
    source = registry.source(request.param)
    tokenizer = registry.load_tokenizer(source)
    torch.manual_seed(0)
    return registry.load_model(source, "causal_lm", tokenizer.pad_token_id).eval(), tokenizer


def alone(model, ids, length):
    """The log-probabilities of the last `length` tokens of one sequence, a token at a time."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    return [
        float(logits[place - 1].log_softmax(-1)[ids[place]])
        for place in range(len(ids) - length, len(ids))
    ]


@pytest.mark.sparse
@pytest.mark.parametrize("name", NAMES)
def test_scores_and_choice_equal_a_loop_over_single_candidates(family, name):
    model, tokenizer = family
    adapter = task(name)
    rows = examples(adapter, tokenizer, n=3)
    found = features(adapter, rows, tokenizer)
    batch = adapter.collator(tokenizer)(found)
    expected, chosen = [], []
    for row in found:
        pairs = zip(row["input_ids"], row["answer_lengths"], strict=True)
        means = [sum(alone(model, ids, n)) / n for ids, n in pairs]
        expected += means
        chosen.append(means.index(max(means)))
    with torch.no_grad():
        scores = adapter.scores(model, batch, at_once=4)
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert adapter.predict(model, batch, tokenizer) == chosen


@pytest.mark.sparse
@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_over_candidates_or_over_the_right_answers_tokens(family, name):
    model, tokenizer = family
    adapter = task(name)
    found = features(adapter, examples(adapter, tokenizer, n=3), tokenizer)
    loss = adapter.loss(model, adapter.collator(tokenizer)(found))
    assert loss.requires_grad
    tokens = [
        [alone(model, ids, n) for ids, n in zip(f["input_ids"], f["answer_lengths"], strict=True)]
        for f in found
    ]
    if adapter.config.loss == "answer":
        right = [t[f["labels"]] for t, f in zip(tokens, found, strict=True)]
        expected = -sum(map(sum, right)) / sum(map(len, right))
    else:
        means = [torch.tensor([sum(one) / len(one) for one in row]) for row in tokens]
        losses = [-row.log_softmax(0)[f["labels"]] for row, f in zip(means, found, strict=True)]
        expected = float(sum(losses) / len(losses))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)


def test_padding_on_either_side_gives_the_same_scores(family):
    model, tokenizer = family
    sequences, lengths = [[5, 6, 7, 8, 9], [10, 11, 12], [13, 14, 15, 16]], torch.tensor([2, 1, 2])
    left = batches.inputs(sequences, tokenizer.pad_token_id)
    right = batches.inputs(sequences, tokenizer.pad_token_id, side="right")
    with torch.no_grad():
        scores = batches.answer_log_probs(model, *left.values(), lengths).sum(-1)
        logits = model(**right, position_ids=batches.positions(right["attention_mask"])).logits
    expected = [
        sum(
            float(logits[i, p - 1].log_softmax(-1)[ids[p]])
            for p in range(len(ids) - int(n), len(ids))
        )
        for i, (ids, n) in enumerate(zip(sequences, lengths, strict=True))
    ]
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name", [n for n in rendering.NAMES if base.load(n).adapter == "candidates"]
)
def test_what_is_scored_is_the_candidate_and_nothing_else(gpt2, name):
    adapter = task(name)
    rows = examples(adapter, gpt2, n=4)
    for at, found in enumerate(features(adapter, rows, gpt2, 512)):
        row = {column: values[at] for column, values in rows.items()}
        first_tokens = []
        for ids, length, candidate in zip(
            found["input_ids"], found["answer_lengths"], adapter.candidates(row, at), strict=True
        ):
            answer = adapter.render(adapter.config.answer, {**row, "candidate": candidate}, at)
            assert gpt2.decode(ids[-length:]) == answer
            first_tokens.append(ids[-length])
            text = gpt2.decode(ids)
            assert text == text.strip(" ") and "  " not in text.replace("...", "")
        if hasattr(adapter.config.candidates, "words"):
            assert len(set(first_tokens)) == len(first_tokens)


def test_the_passage_is_cut_and_never_the_question_or_the_answer():
    tokenizer, adapter = tokenizer_of("tiny-gpt2"), task("mezo/boolq")
    rows = {
        "passage": ["the film is good . " * 40, "short ."],
        "question": ["is the film good"] * 2,
        "answer": [True, False],
    }
    encoded = adapter.encode(rows, tokenizer, 60)
    assert encoded["truncated"] == [True, False]
    for ids, answer in zip(encoded["input_ids"][0], ("No", "Yes"), strict=True):
        assert 50 < len(ids) <= 60
        assert tokenizer.decode(ids).endswith(f"Is the film good?\n{answer}")
        assert tokenizer.decode(ids).startswith("the film is good . the film")
    prompts = [
        ids[:-n]
        for ids, n in zip(encoded["input_ids"][0], encoded["answer_lengths"][0], strict=True)
    ]
    assert prompts[0] == prompts[1], "every candidate stands after the same prompt"


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        (
            "mezo/boolq",
            {"passage": ["ok", " "]},
            "row 1: mezo/boolq: column passage: empty text ' '",
        ),
        ("mezo/boolq", {"passage": ...}, "mezo/boolq: column passage is missing; the data has"),
        (
            "mezo/boolq",
            {"answer": [False, 2]},
            "row 1: mezo/boolq: column answer: label 2 is outside No, Yes",
        ),
        (
            "mezo/copa",
            {"question": ["cause", "result"]},
            "row 1: mezo/copa: column question: 'result' is none of cause, effect",
        ),
        (
            "mezo/record",
            {"answers": [["A"], ["C"]]},
            "row 1: mezo/record: column answers: ['C'] is not among",
        ),
        ("mezo/record", {"entities": ...}, "mezo/record: column entities is missing"),
    ],
)
def test_a_bad_row_is_named(name, changes, said):
    usual = {
        "mezo/boolq": {"passage": ["a", "b"], "question": ["q", "r"], "answer": [False, True]},
        "mezo/copa": {
            "premise": ["a.", "b."],
            "question": ["cause", "effect"],
            "choice1": ["A", "B"],
        }
        | {"choice2": ["C", "D"], "label": [0, 1]},
        "mezo/record": {"passage": ["a", "b"], "query": ["@placeholder ."] * 2}
        | {"entities": [["A", "B"]] * 2, "answers": [["A"], ["B"]]},
    }[name]
    rows = {column: v for column, v in (usual | changes).items() if v is not ...}
    with pytest.raises(base.TaskError) as raised:
        task(name).encode(rows, tokenizer_of("tiny-gpt2"), 60)
    assert str(raised.value).startswith(said)
