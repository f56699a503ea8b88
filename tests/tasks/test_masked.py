"""Masked prompts against a loop over single rows, LM-BFF's formula, and its templates as text."""

import pytest
import rendering
import torch
from twin_rows import examples, features, task
from twin_tables import tables, tokenizer_of

from benchmark.errors import Unsupported
from benchmark.models import registry
from benchmark.models.facts import check_head
from tasks import base

FEWSHOT = [name for name in rendering.NAMES if base.load(name).adapter == "masked"]
ONE_OF_EACH = [name for name in FEWSHOT if name.endswith("_k16")]


@pytest.fixture(scope="module", params=["tiny-roberta", "tiny-bert"])
def family(request):
    source = registry.source(request.param)
    tokenizer = registry.load_tokenizer(source)
    torch.manual_seed(0)
    return registry.load_model(source, "masked_lm", tokenizer.pad_token_id).eval(), tokenizer


def changed(name, **changes):
    content = base.load(name).model_dump() | changes
    return base.adapter(base.parse(content.pop("name"), content, "made up"))


def of_single_tokens(tokenizer, name="fewshot/sst5_k16"):
    """The task with words that the twin's tokenizer does not split."""
    known = ["the", "of", "and", "is", "it", "was", "film", "to", "in", "on", "that"]
    whole = [word for word in known if len(tokenizer(f" {word}")["input_ids"]) == 3]
    return changed(name, words=whole[: len(base.load(name).words)], several_tokens=False)


def alone(model, ids, mask):
    """Log-probabilities at every mask of one row, unbatched."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    return [logits[at].log_softmax(-1) for at, token in enumerate(ids) if token == mask]


@pytest.mark.parametrize("name", ["fewshot/sst5_k16", "fewshot/snli_k16", "fewshot/trec_k16"])
def test_scores_choice_and_loss_equal_a_loop_over_single_rows(family, name):
    model, tokenizer = family
    adapter = task(name)
    found = features(adapter, examples(adapter, tokenizer, n=5), tokenizer)
    words = [
        tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        for word in adapter.config.words
    ]
    expected = []
    for row in found:
        at_masks = alone(model, row["input_ids"], tokenizer.mask_token_id)
        assert len(at_masks) == max(map(len, words))
        expected.append(
            [
                sum(float(at_masks[place][token]) for place, token in enumerate(word)) / len(word)
                for word in words
            ]
        )
    expected = torch.tensor(expected)
    batch = adapter.collator(tokenizer)(found)
    with torch.no_grad():
        torch.testing.assert_close(adapter.scores(model, batch), expected, rtol=1e-4, atol=1e-4)
    assert adapter.predict(model, batch, tokenizer) == expected.argmax(1).tolist()
    loss = adapter.loss(model, batch)
    assert loss.requires_grad
    right = [row.log_softmax(0)[f["labels"]] for row, f in zip(expected, found, strict=True)]
    assert float(loss.detach()) == pytest.approx(-float(sum(right)) / len(right), rel=1e-4)


def test_with_one_token_each_the_loss_is_lm_bff_s(family):
    """Cross-entropy over the words' logits at the mask, as transformers' own loss at one position."""
    model, tokenizer = family
    adapter = of_single_tokens(tokenizer)
    found = features(adapter, examples(adapter, tokenizer, n=4), tokenizer)
    words = [
        tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0]
        for word in adapter.config.words
    ]
    rows = []
    for row in found:
        at = row["input_ids"].index(tokenizer.mask_token_id)
        rows.append(model(torch.tensor([row["input_ids"]])).logits[0, at, words])
    labels = torch.tensor([row["labels"] for row in found])
    expected = torch.nn.CrossEntropyLoss()(torch.stack(rows), labels)
    loss = adapter.loss(model, adapter.collator(tokenizer)(found))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


RENDERED = {
    "fewshot/sst2_k16": ({"sentence": "so good . "}, "so good .  It was<mask>."),
    "fewshot/sst5_k16": ({"text": "so good ."}, "so good . It was<mask>."),
    "fewshot/snli_k16": (
        {"premise": "A man sleeps.", "hypothesis": "The man rests."},
        "A man sleeps?<mask>, the man rests.",
    ),
    "fewshot/mnli_k16": (
        {"premise": "A man sleeps.", "hypothesis": "The man rests."},
        "A man sleeps?<mask>, the man rests.",
    ),
    "fewshot/rte_k16": (
        {"sentence1": "A man sleeps.", "sentence2": "The man rests."},
        "A man sleeps?<mask>, the man rests.",
    ),
    "fewshot/trec_k16": ({"text": "Who is he ?"}, "<mask>: Who is he ?"),
}
MEANT = {  # the words of arXiv 2012.15723, table 1, by the dataset's own label names
    "fewshot/sst2_k16": {"negative": "terrible", "positive": "great"},
    "fewshot/snli_k16": {"entailment": "Yes", "neutral": "Maybe", "contradiction": "No"},
    "fewshot/mnli_k16": {"entailment": "Yes", "neutral": "Maybe", "contradiction": "No"},
    "fewshot/rte_k16": {"entailment": "Yes", "not_entailment": "No"},
    "fewshot/trec_k16": {
        "ABBR": "Expression",
        "ENTY": "Entity",
        "DESC": "Description",
        "HUM": "Human",
        "LOC": "Location",
        "NUM": "Number",
    },
}


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_the_template_is_lm_bff_s(name):
    row, text = RENDERED[name]
    adapter = task(name)
    assert adapter.render(adapter.config.prompt, {**row, "mask": "<mask>"}, 0) == text
    twelve = adapter.config.model_dump(exclude={"name", "dataset", "card"})
    more = base.load(name.replace("_k16", "_k512"))
    assert more.model_dump(exclude={"name", "dataset", "card"}) == twelve
    assert more.dataset.shots.count == 512 and adapter.config.dataset.shots.count == 16


@pytest.mark.parametrize("name", MEANT)
def test_a_label_has_its_own_word(name):
    dataset = base.load(name).dataset
    names = tables(dataset.id, dataset.config).features[base.load(name).label].names
    assert dict(zip(names, base.load(name).words, strict=True)) == MEANT[name]


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_roberta_s_vocabulary_has_every_word_as_one_token(gpt2, name):
    """RoBERTa's byte pairs are GPT-2's, whose tokenizer is at hand."""
    pieces = [gpt2(f" {word}")["input_ids"] for word in base.load(name).words]
    assert [len(ids) for ids in pieces] == [1] * len(pieces)
    assert len({ids[0] for ids in pieces}) == len(pieces)


def test_a_word_of_several_tokens_is_refused_where_one_is_needed():
    tokenizer = tokenizer_of("tiny-roberta")
    adapter = changed("fewshot/sst2_k16", several_tokens=False)
    rows = {"sentence": ["good"], "label": [1]}
    said = r"fewshot/sst2_k16: words: the tokenizer of .*tiny-roberta splits 'terrible' into Ġt er ri ble"
    with pytest.raises(base.TaskError, match=said):
        adapter.encode(rows, tokenizer, 64)
    one = of_single_tokens(tokenizer, "fewshot/sst2_k16")
    (ids,) = one.encode(rows, tokenizer, 64)["input_ids"]
    assert ids.count(tokenizer.mask_token_id) == 1


def test_a_word_that_is_unknown_or_another_s_is_refused():
    tokenizer = tokenizer_of("tiny-bert")
    rows = {"sentence": ["good"], "label": [1]}
    for words, said in (
        (("good", "日"), "does not know '日'"),
        (("Good", "good"), "'good' from 'Good'"),
    ):
        with pytest.raises(base.TaskError, match=said):
            changed("fewshot/sst2_k16", words=words).encode(rows, tokenizer, 64)


USUAL = {"premise": ["a b.", "c d."], "hypothesis": ["e", "f"], "label": [0, 1]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"premise": ["a.", " "]}, "row 1: fewshot/snli_k16: column premise: empty text ' '"),
        ({"hypothesis": ...}, "fewshot/snli_k16: column hypothesis is missing; the data has"),
        (
            {"label": [0, -1]},
            "row 1: fewshot/snli_k16: column label: label -1 is outside Yes, Maybe",
        ),
        (
            {"hypothesis": ["a", "b <mask>"]},
            "row 1: fewshot/snli_k16: a text contains <mask>, the mask",
        ),
    ],
)
def test_a_bad_row_is_named(changes, said):
    rows = {column: v for column, v in (USUAL | changes).items() if v is not ...}
    with pytest.raises(base.TaskError) as raised:
        task("fewshot/snli_k16").encode(rows, tokenizer_of("tiny-roberta"), 64)
    assert str(raised.value).startswith(said)


def test_a_causal_family_is_refused_before_it_loads():
    with pytest.raises(Unsupported, match=r"tiny-gpt2: its family gpt2 has no head masked_lm"):
        check_head(registry.facts(registry.source("tiny-gpt2")), task("fewshot/sst2_k16").head)


def test_a_demonstration_is_the_prompt_with_the_right_word(family):
    _, tokenizer = family
    adapter = task("fewshot/rte_k16")
    rows = {"sentence1": ["He ran.", "It is."], "sentence2": ["He moved.", "It is not."]}
    rows["label"] = [0, 1]
    shown = adapter.demonstrated(rows)
    assert shown == ["He ran? Yes, he moved.", "It is? No, it is not."]
    adapter.demonstrations = shown
    encoded = adapter.encode(rows, tokenizer, 128)
    assert encoded["shown"] == [2, 2]
    masks = max(map(len, adapter.words(tokenizer)))
    for ids in encoded["input_ids"]:
        assert ids.count(tokenizer.mask_token_id) == masks
    text = tokenizer.decode(encoded["input_ids"][0], skip_special_tokens=True)
    assert text.lower().replace(" ", "").startswith("heran?yes,hemoved.")
