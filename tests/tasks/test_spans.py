"""Span answers against transformers' own choice of an answer, written out, and against single windows."""

import types

import numpy as np
import pytest
import torch
from twin_rows import examples, features, task
from twin_tables import tokenizer_of

from benchmark.errors import Unsupported
from benchmark.models import registry
from benchmark.models.facts import check_head
from tasks import base, spans

FAMILIES = ["tiny-bert", "tiny-roberta", "tiny-gpt2", "tiny-opt", "tiny-llama", "tiny-gpt-neo"]
SHORT = 48  # tokens of a window: most contexts of the twin need several


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    source = registry.source(request.param)
    tokenizer = registry.load_tokenizer(source)
    torch.manual_seed(0)
    return (
        registry.load_model(source, "question_answering", tokenizer.pad_token_id).eval(),
        tokenizer,
    )


def squad():
    return task("qa/squad")


def answer_of_run_qa(windows, context, n_best, longest):
    """The text that transformers' utils_qa.py chooses for one example, its loops as they are there.

    `windows` are (start logits, end logits, offsets), an offset None outside the context.
    """
    found = []
    for starts, ends, offsets in windows:
        for start in np.argsort(starts)[-1 : -n_best - 1 : -1].tolist():
            for end in np.argsort(ends)[-1 : -n_best - 1 : -1].tolist():
                if offsets[start] is None or offsets[end] is None:
                    continue
                if end < start or end - start + 1 > longest:
                    continue
                place = offsets[start][0], offsets[end][1]
                found.append((starts[start] + ends[end], *place))
    best = max(found, default=None)
    return None if best is None else (best[0], context[best[1] : best[2]].strip())


def said_by(rows):
    """A model in whose place the logits `rows` (start, end of each window in turn) stand."""
    place = iter(rows)

    def forward(input_ids, **_):
        length = input_ids.shape[1]
        padded = [
            [
                torch.nn.functional.pad(side, (0, length - len(side)), value=9.0)
                for side in next(place)
            ]
            for _ in input_ids
        ]
        starts, ends = (torch.stack(side) for side in zip(*padded, strict=True))
        return types.SimpleNamespace(start_logits=starts, end_logits=ends)

    return forward


@pytest.mark.sparse
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["tiny-bert", "tiny-roberta", "tiny-llama"])
def test_the_answer_is_transformers_own_on_random_logits(name, seed):
    """Padding is given the highest logits, to no effect. With its 20 best starts and ends transformers may
    miss the best pair, so its score is never above ours; with as many as there are tokens it is the same."""
    tokenizer, adapter = tokenizer_of(name), squad()
    rows = examples(adapter, tokenizer, n=8)
    found = features(adapter, rows, tokenizer, SHORT)
    generator = torch.Generator().manual_seed(seed)
    logits = [
        [
            [torch.randn(len(ids), generator=generator) for _ in ("start", "end")]
            for ids in row["input_ids"]
        ]
        for row in found
    ]
    assert max(map(len, logits)) > 1
    batch = adapter.collator(tokenizer)(found)
    model = said_by([window for row in logits for window in row])
    texts = adapter.predict(model, batch, tokenizer)
    for row, of_row, context, text in zip(found, logits, rows["context"], texts, strict=True):
        windows = [
            (
                *(side.numpy() for side in sides),
                [None if o == spans.OUTSIDE else o for o in map(tuple, offsets)],
            )
            for sides, offsets in zip(of_row, row["offsets"], strict=True)
        ]
        longest = adapter.config.max_answer_tokens
        score, expected = answer_of_run_qa(windows, context, SHORT, longest)
        assert text == expected
        few = answer_of_run_qa(windows, context, 20, longest)
        assert few is None or few[0] <= score + 1e-6


def test_answer_loss_and_padding_against_single_windows(family):
    model, tokenizer = family
    adapter = squad()
    rows = examples(adapter, tokenizer, n=3)
    found = features(adapter, rows, tokenizer, SHORT)
    losses, expected = [], []
    for row, context in zip(found, rows["context"], strict=True):
        windows = []
        for window, ids in enumerate(row["input_ids"]):
            inputs = {"input_ids": torch.tensor([ids])}
            if "token_type_ids" in row:
                inputs["token_type_ids"] = torch.tensor([row["token_type_ids"][window]])
            with torch.no_grad():
                output = model(**inputs)
            sides = output.start_logits[0], output.end_logits[0]
            losses.append(
                sum(
                    -float(side.log_softmax(0)[label])
                    for side, label in zip(sides, row["labels"][window], strict=True)
                )
                / 2
            )
            offsets = [
                None if o == spans.OUTSIDE else o for o in map(tuple, row["offsets"][window])
            ]
            windows.append((*(side.numpy() for side in sides), offsets))
        expected.append(answer_of_run_qa(windows, context, SHORT, 30)[1])
    batch = adapter.collator(tokenizer)(found)
    with torch.no_grad():
        assert adapter.predict(model, batch, tokenizer) == expected
    loss = adapter.loss(model, batch)
    assert loss.requires_grad
    assert float(loss.detach()) == pytest.approx(sum(losses) / len(losses), rel=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_windows_overlap_and_leave_nothing_out_and_labels_are_the_answer_s_tokens(name):
    """Labels against the tokenizer's own `char_to_token`."""
    tokenizer, adapter = tokenizer_of(name), squad()
    rows = examples(adapter, tokenizer, n=12)
    encoded = adapter.encode(rows, tokenizer, SHORT)
    own = tokenizer(
        [question.strip() for question in rows["question"]],
        rows["context"],
        truncation="only_second",
        max_length=SHORT,
        stride=SHORT // 3,
        return_overflowing_tokens=True,
    )
    window, labelled = 0, 0
    for at, context in enumerate(rows["context"]):
        start = rows["answers"][at]["answer_start"][0]
        end = start + len(rows["answers"][at]["text"][0]) - 1
        seen, before = set(), None
        for number, ids in enumerate(encoded["input_ids"][at]):
            assert (
                own["overflow_to_sample_mapping"][window] == at and own["input_ids"][window] == ids
            )
            tokens = [own.char_to_token(window, char, sequence_index=1) for char in (start, end)]
            expected = (0, 0) if None in tokens else tuple(tokens)
            assert tuple(encoded["labels"][at][number]) == expected
            labelled += expected != (0, 0)
            places = [o for o in encoded["offsets"][at][number] if o != spans.OUTSIDE]
            if before is not None:
                assert before[-(SHORT // 3) :] == places[: SHORT // 3]
            before = places
            seen.update(char for first, last in places for char in range(first, last))
            window += 1
        assert {char for char, text in enumerate(context) if not text.isspace()} <= seen
    assert labelled >= len(rows["context"]) and encoded["truncated"] == [False] * 12


@pytest.mark.parametrize("name", FAMILIES)
def test_right_logits_give_every_answer_of_the_twin(name):
    tokenizer, adapter = tokenizer_of(name), squad()
    rows = examples(adapter, tokenizer, n=40)
    found = features(adapter, rows, tokenizer, 96)
    sure = []
    for row in found:
        for ids, labels in zip(row["input_ids"], row["labels"], strict=True):
            sides = torch.zeros(2, len(ids))
            sides[range(2), labels] = 5.0
            sure.append(list(sides))
    batch = adapter.collator(tokenizer)(found)
    texts = adapter.predict(said_by(sure), batch, tokenizer)
    scores = adapter.score(texts, adapter.references(rows))
    assert scores == {"exact_match": 1.0, "f1": 1.0}


def test_an_answer_is_never_longer_than_allowed():
    offsets = torch.tensor([[(-1, -1), *((i, i + 1) for i in range(6)), (-1, -1)]])
    starts = torch.tensor([[9.0, 5, 0, 0, 0, 0, 0, 9]])
    ends = torch.tensor([[9.0, 0, 0, 1, 0, 0, 5, 9]])
    for longest, place in ((6, (0, 6)), (5, (0, 3)), (1, (0, 1))):
        score, found = spans.best_spans(starts, ends, offsets, longest)
        assert tuple(found[0].tolist()) == place
        assert float(score) == {6: 10, 5: 6, 1: 5}[longest]


def answers(*pairs):
    return [{"text": [text], "answer_start": [start]} for text, start in pairs]


USUAL = {
    "question": ["who ?", "what ?"],
    "context": ["Ann ran .", "A film ."],
    "answers": answers(("Ann", 0), ("film", 2)),
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"context": ["a", " "]}, "row 1: qa/squad: column context: empty text ' '"),
        ({"question": ["who ?", ""]}, "row 1: qa/squad: column question: empty text ''"),
        ({"context": ...}, "qa/squad: column context is missing; the data has question, answers"),
        ({"answers": ...}, "qa/squad: column answers.answer_start is missing; the data has"),
        (
            {"answers": [{"text": ["a"]}] * 2},
            "row 0: qa/squad: column answers.answer_start is missing; the data has text",
        ),
        (
            {"answers": [USUAL["answers"][0], {"text": [], "answer_start": []}]},
            "row 1: qa/squad: column answers: no answer",
        ),
        (
            {"answers": answers(("Ann", 0), ("film", 7))},
            "row 1: qa/squad: column answers: 'film' at [7] is outside the 8 characters of context",
        ),
    ],
)
def test_a_bad_row_is_named(changes, said):
    rows = {column: v for column, v in (USUAL | changes).items() if v is not ...}
    with pytest.raises(base.TaskError) as raised:
        squad().encode(rows, tokenizer_of("tiny-bert"), SHORT)
    assert str(raised.value).startswith(said)


def test_a_family_without_the_head_is_refused_from_its_configuration(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(Unsupported, match="its family mamba has no head question_answering"):
        check_head(registry.facts(registry.source(str(tmp_path))), squad().head)
