"""The classification adapter against the tokenizer, the model and cross-entropy used directly."""

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from benchmark.models import registry
from tasks import base

SST2, MRPC = (base.adapter(base.load(name)) for name in ("glue/sst2", "glue/mrpc"))
ROWS = {
    "sentence": ["good", "not good at all , no", "bad film"],
    "label": [1, 0, 0],
    "idx": [0, 1, 2],
}
PAIRS = {
    "sentence1": ["the dog barks", "a cat"],
    "sentence2": ["a dog barks loudly", "two cats"],
    "label": [1, 0],
}


@pytest.fixture(scope="module", params=["tiny-bert", "tiny-roberta", "tiny-gpt2"])
def source(request):
    return registry.source(request.param)


@pytest.fixture(scope="module")
def tokenizer(source):
    return registry.load_tokenizer(source)


@pytest.fixture(scope="module")
def model(source, tokenizer):
    torch.manual_seed(0)
    return registry.load_model(
        source, SST2.head, tokenizer.pad_token_id, **SST2.model_arguments()
    ).eval()


def batch(adapter, rows, tokenizer, max_length=32):
    columns = adapter.encode(rows, tokenizer, max_length)
    columns.pop("truncated")
    features = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return adapter.collator(tokenizer)(features)


def test_one_text_is_encoded_as_the_tokenizer_does(tokenizer):
    encoded = SST2.encode(ROWS, tokenizer, 32)
    assert encoded["input_ids"] == [tokenizer(text)["input_ids"] for text in ROWS["sentence"]]
    assert encoded["labels"] == [1, 0, 0] and encoded["truncated"] == [False] * 3


def test_two_texts_are_encoded_as_a_pair(tokenizer):
    encoded = MRPC.encode(PAIRS, tokenizer, 64)
    pairs = zip(PAIRS["sentence1"], PAIRS["sentence2"], strict=True)
    assert encoded["input_ids"] == [tokenizer(*pair)["input_ids"] for pair in pairs]
    if "token_type_ids" in tokenizer.model_input_names:
        assert all(1 in row and 0 in row for row in encoded["token_type_ids"])


def test_a_cut_text_is_marked(tokenizer):
    encoded = SST2.encode(ROWS, tokenizer, 5)
    full = [len(tokenizer(text)["input_ids"]) for text in ROWS["sentence"]]
    assert encoded["truncated"] == [n > 5 for n in full]
    assert [len(ids) for ids in encoded["input_ids"]] == [min(n, 5) for n in full]


def test_the_loss_is_the_mean_cross_entropy(model, tokenizer):
    inputs = batch(SST2, ROWS, tokenizer)
    loss = SST2.loss(model, inputs)
    assert loss.requires_grad and loss.shape == ()
    logits = torch.cat(
        [model(**tokenizer(text, return_tensors="pt")).logits for text in ROWS["sentence"]]
    )
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(ROWS["label"]))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)  # padding makes no difference


def test_the_prediction_is_the_highest_logit_and_never_sees_the_label(model, tokenizer):
    inputs = batch(SST2, ROWS, tokenizer)
    with torch.no_grad():
        logits = model(**{k: v for k, v in inputs.items() if k != "labels"}).logits
    assert SST2.predict(model, inputs, tokenizer) == logits.argmax(-1).tolist()
    assert (
        SST2.predict(model, inputs | {"labels": 1 - inputs["labels"]}, tokenizer)
        == logits.argmax(-1).tolist()
    )


def test_the_head_has_the_tasks_labels(model):
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert model.config.label2id == {"negative": 0, "positive": 1}


def test_labels_may_be_false_and_true(tokenizer):
    encoded = SST2.encode(ROWS | {"label": [True, False, False]}, tokenizer, 32)
    assert encoded["labels"] == [1, 0, 0] and type(encoded["labels"][0]) is int


def test_a_text_of_which_nothing_is_left_is_refused():
    tokenizer = registry.load_tokenizer(registry.source("tiny-roberta"))  # 4 added tokens in a pair
    with pytest.raises(
        base.TaskError, match="row 0: glue/mrpc: no token of 'sentence1' is left: r"
    ):
        MRPC.encode(PAIRS, tokenizer, 4)


def test_scores_are_scikit_learns():
    predictions, references = [1, 1, 0, 1, 0], [1, 0, 0, 1, 1]
    expected = {
        "accuracy": accuracy_score(references, predictions),
        "f1": f1_score(references, predictions),
    }
    assert MRPC.score(predictions, references) == pytest.approx(expected)
    assert SST2.score(predictions, references) == {"accuracy": pytest.approx(0.6)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"label": [1, 2, 0]},
            "row 1: glue/sst2: column label: label 2 is outside negative, positive",
        ),
        ({"label": [1, -1, 0]}, "row 1: glue/sst2: column label: label -1 is outside"),
        ({"label": [1, "positive", "good"]}, "row 2: glue/sst2: column label: label 'good'"),
        ({"label": [1, 0, 0.5]}, "row 2: glue/sst2: column label: label 0.5"),
        ({"sentence": ["good", "", "bad"]}, "row 1: glue/sst2: column sentence: empty text ''"),
        ({"sentence": ["good", "bad", None]}, "row 2: glue/sst2: column sentence: empty text None"),
        ({"sentence": ...}, "glue/sst2: column sentence is missing; the data has label, idx"),
        ({"label": ...}, "glue/sst2: column label is missing; the data has sentence, idx"),
    ],
)
def test_a_bad_row_is_named(changes, said):
    rows = {k: v for k, v in (ROWS | changes).items() if v is not ...}
    tokenizer = registry.load_tokenizer(registry.source("tiny-bert"))
    with pytest.raises(base.TaskError) as raised:
        SST2.encode(rows, tokenizer, 32)
    assert str(raised.value).startswith(said)
