"""Tags of words against transformers' own encoding of split words and its collator, and single sentences."""

import pytest
import torch
from transformers import DataCollatorForTokenClassification
from twin_rows import examples, features, task
from twin_tables import tokenizer_of

from benchmark.errors import Unsupported
from benchmark.models import registry
from benchmark.models.facts import check_head
from tasks import base

FAMILIES = ["tiny-bert", "tiny-roberta", "tiny-gpt2", "tiny-opt", "tiny-llama", "tiny-gpt-neo"]


def conll():
    return task("ner/conll2003")


@pytest.fixture(scope="module", params=[name for name in FAMILIES if name != "tiny-opt"])
def family(request):
    source = registry.source(request.param)
    tokenizer = registry.load_tokenizer(source)
    torch.manual_seed(0)
    arguments = conll().model_arguments()
    head, pad = "token_classification", tokenizer.pad_token_id
    return registry.load_model(source, head, pad, **arguments).eval(), tokenizer


def test_a_model_has_the_tags_by_name(family):
    model, _ = family
    assert model.config.num_labels == 9
    assert model.config.id2label[1] == "B-PER" and model.config.label2id["I-MISC"] == 8


@pytest.mark.parametrize("max_length", [128, 12])
def test_labels_are_transformers_own_for_split_words(max_length):
    """As in run_ner.py: the tag on a word's first token, -100 elsewhere."""
    tokenizer, adapter = tokenizer_of("tiny-bert"), conll()
    rows = examples(adapter, tokenizer, n=12)
    batch = adapter.collator(tokenizer)(features(adapter, rows, tokenizer, max_length))
    own = tokenizer(
        rows["tokens"], is_split_into_words=True, truncation=True, max_length=max_length
    )
    single = []
    for row, tags in enumerate(rows["ner_tags"]):
        before, labels = None, []
        for word in own.word_ids(row):
            labels.append(-100 if word is None or word == before else tags[word])
            before = word
        single.append({"input_ids": own["input_ids"][row], "labels": labels})
    expected = DataCollatorForTokenClassification(tokenizer)(single)
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert torch.equal(batch["labels"], expected["labels"])
    assert torch.equal(batch["attention_mask"], expected["attention_mask"])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_word_s_first_token_begins_it_in_every_family(name):
    tokenizer, adapter = tokenizer_of(name), conll()
    words = ["Émile", "'s", "U.S.", "-", "x", "New-York", "10,5", "日本", "(", "a"]
    rows = {"tokens": [words, words[::-1]], "ner_tags": [[0] * len(words)] * 2}
    for at, ids in enumerate(adapter.encode(rows, tokenizer, 128)["input_ids"]):
        first = adapter.encode(rows, tokenizer, 128)["first"][at]
        assert first == sorted(set(first)) and first[0] >= 0
        starts = tokenizer(" ".join(rows["tokens"][at]), return_offsets_mapping=True)
        place = 0
        for token, word in zip(first, rows["tokens"][at], strict=True):
            begin, end = starts["offset_mapping"][token]
            assert begin <= place < end
            assert all(
                before_end <= place
                for before_begin, before_end in starts["offset_mapping"][1:token]
                if before_end > before_begin
            )
            place += len(word) + 1
        assert len(ids) == len(starts["input_ids"])


def test_predictions_and_loss_equal_single_sentences(family):
    model, tokenizer = family
    adapter = conll()
    found = features(adapter, examples(adapter, tokenizer, n=6), tokenizer, 24)
    names, expected, losses = adapter.config.names, [], []
    for row in found:
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0]
        tags = []
        for token, tag in zip(row["first"], row["tags"], strict=True):
            tags.append("O" if token < 0 else names[int(logits[token].argmax())])
            if token >= 0:
                losses.append(-float(logits[token].log_softmax(0)[tag]))
        expected.append(tags)
    batch = adapter.collator(tokenizer)(found)
    with torch.no_grad():
        assert adapter.predict(model, batch, tokenizer) == expected
    loss = adapter.loss(model, batch)
    assert loss.requires_grad
    assert float(loss.detach()) == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_words_beyond_the_length_count_as_outside_and_are_said_to_be_cut():
    tokenizer, adapter = tokenizer_of("tiny-bert"), conll()
    rows = {"tokens": [["the"] * 30, ["the"]], "ner_tags": [[1] + [2] * 29, [0]]}
    encoded = adapter.encode(rows, tokenizer, 12)
    assert encoded["truncated"] == [True, False]
    assert encoded["first"][0] == [*range(1, 11), *[-1] * 20]
    source = registry.source("tiny-bert")
    model = registry.load_model(
        source, "token_classification", tokenizer.pad_token_id, **adapter.model_arguments()
    )
    found = features(adapter, rows, tokenizer, 12)
    long, short = adapter.predict(model, adapter.collator(tokenizer)(found), tokenizer)
    assert (len(long), len(short)) == (30, 1)
    assert long[10:] == ["O"] * 20
    assert adapter.references(rows) == [["B-PER", *["I-PER"] * 29], ["O"]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokens": [["a"], []]}, "row 1: ner/conll2003: column tokens: empty text ''"),
        ({"tokens": [["a"], ["b", " "]]}, "row 1: ner/conll2003: column tokens: empty text ' '"),
        ({"tokens": ...}, "ner/conll2003: column tokens is missing; the data has ner_tags"),
        ({"ner_tags": ...}, "ner/conll2003: column ner_tags is missing; the data has tokens"),
        ({"ner_tags": [[0], [1]]}, "row 1: ner/conll2003: column ner_tags: 1 tags for 2 words"),
        (
            {"ner_tags": [[9], [0, 1]]},
            "row 0: ner/conll2003: column ner_tags: tag 9 is outside O, B",
        ),
    ],
)
def test_a_bad_row_is_named(changes, said):
    usual = {"tokens": [["a"], ["b", "c"]], "ner_tags": [[0], [0, 1]]}
    rows = {column: v for column, v in (usual | changes).items() if v is not ...}
    with pytest.raises(base.TaskError) as raised:
        conll().encode(rows, tokenizer_of("tiny-bert"), 32)
    assert str(raised.value).startswith(said)


def test_tags_need_one_for_none():
    content = base.load("ner/conll2003").model_dump() | {"names": ["B-PER", "I-PER"]}
    with pytest.raises(base.TaskError, match="made up: names: O is missing"):
        base.parse(content.pop("name"), content, "made up")


def test_a_family_without_the_head_is_refused_from_its_configuration():
    with pytest.raises(
        Unsupported, match="tiny-opt: its family opt has no head token_classification"
    ):
        check_head(registry.facts(registry.source("tiny-opt")), conll().head)
