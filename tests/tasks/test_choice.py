"""Choice with a head against a loop over single candidates."""

import pytest
import torch
from twin_rows import examples, features, task
from twin_tables import tokenizer_of

from benchmark.errors import Unsupported
from benchmark.models import registry
from benchmark.models.facts import check_head
from tasks import base

NAMES = ["superglue/copa", "superglue/record"]
FAMILIES = ["tiny-bert", "tiny-roberta", "tiny-gpt2", "tiny-opt", "tiny-llama", "tiny-gpt-neo"]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    source = registry.source(request.param)
    tokenizer = registry.load_tokenizer(source)
    torch.manual_seed(0)
    head, pad = "sequence_classification", tokenizer.pad_token_id
    return registry.load_model(source, head, pad, num_labels=1).eval(), tokenizer


@pytest.mark.sparse
@pytest.mark.parametrize("name", NAMES)
def test_logits_choice_and_loss_equal_a_loop_over_single_candidates(family, name):
    model, tokenizer = family
    adapter = task(name)
    assert adapter.model_arguments() == {"num_labels": 1}
    rows = examples(adapter, tokenizer, n=4)
    if "entities" in rows:  # of unequal numbers
        rows["entities"][0] = [*rows["entities"][0][:2], *rows["answers"][0]]
    found = features(adapter, rows, tokenizer)
    logits, chosen, losses = [], [], []
    for row in found:
        of_row = []
        for place in range(len(row["input_ids"])):
            inputs = {
                k: torch.tensor([v[place]]) for k, v in row.items() if k not in ("labels", "needs")
            }
            with torch.no_grad():
                of_row.append(model(**inputs).logits.reshape(()))
        logits += of_row
        of_row = torch.stack(of_row)
        chosen.append(int(of_row.argmax()))
        losses.append(-float(of_row.log_softmax(0)[row["labels"]]))
    batch = adapter.collator(tokenizer)(found)
    assert set(batch["counts"].tolist()) == ({2} if name == "superglue/copa" else {3, 6})
    with torch.no_grad():
        scores = adapter.scores(model, batch, at_once=3)
    torch.testing.assert_close(scores, torch.stack(logits), rtol=1e-4, atol=1e-5)
    assert adapter.predict(model, batch, tokenizer) == chosen
    loss = adapter.loss(model, batch)
    assert loss.requires_grad
    assert float(loss.detach()) == pytest.approx(sum(losses) / len(losses), rel=1e-4)


TEXTS = {
    "superglue/copa": (
        {
            "premise": ["It rained."],
            "question": ["effect"],
            "choice1": ["I got wet."],
            "choice2": ["I ate."],
            "label": [0],
        },
        "It rained. What happened as a result? I got wet.",
    ),
    "superglue/record": (
        {
            "passage": ["Ann met Bo.\n@highlight\nThey spoke."],
            "query": ["@placeholder met Bo."],
            "entities": [["Ann", "Bo"]],
            "answers": [["Ann"]],
        },
        "Ann met Bo.\n- They spoke. Ann met Bo.",
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read(gpt2, name):
    adapter = task(name)
    rows, text = TEXTS[name]
    encoded = adapter.encode(rows, gpt2, 128)
    assert len(encoded["input_ids"][0]) == 2
    assert gpt2.decode(encoded["input_ids"][0][0]).replace(" ", "") == text.replace(" ", "")
    assert encoded["labels"] == [0] and encoded["truncated"] == [False]


def test_the_passage_is_cut_and_never_the_query():
    tokenizer, adapter = tokenizer_of("tiny-bert"), task("superglue/record")
    rows = {
        "passage": ["the film is good . " * 40, "short ."],
        "query": ["@placeholder is good ."] * 2,
        "entities": [["the film", "he"]] * 2,
        "answers": [["he"]] * 2,
    }
    encoded = adapter.encode(rows, tokenizer, 40)
    assert encoded["truncated"] == [True, False] and encoded["labels"] == [1, 1]
    for ids, entity in zip(encoded["input_ids"][0], ("the film", "he"), strict=True):
        assert len(ids) == 40
        assert tokenizer.decode(ids).endswith(f"[SEP] {entity} is good. [SEP]")
    short = adapter.encode(rows, tokenizer, 8)  # six tokens of a film's query do not fit
    assert short["needs"] == [11, 11] and short["truncated"] == [False, False]


def test_any_right_entity_scores():
    adapter = task("superglue/record")
    rows = {
        "entities": [["Ann", "Bo", "Bo B."], ["Ann", "Cy"]],
        "answers": [["Bo", "Bo B."], ["Ann"]],
    }
    references = adapter.references(rows)
    scores = adapter.score([2, 1], references)
    assert scores == {"exact_match": 0.5, "f1": 0.5}


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        (
            "superglue/copa",
            {"choice2": [" "]},
            "row 0: superglue/copa: column choice2: empty text ' '",
        ),
        (
            "superglue/copa",
            {"label": [2]},
            "row 0: superglue/copa: column label: label 2 is outside",
        ),
        (
            "superglue/copa",
            {"premise": ...},
            "superglue/copa: column premise is missing; the data has",
        ),
        (
            "superglue/copa",
            {"question": ["why"]},
            "row 0: superglue/copa: column question: 'why' is none of cause, eff",
        ),
        ("superglue/record", {"entities": ...}, "superglue/record: column entities is missing"),
        (
            "superglue/record",
            {"answers": [["Cy"]]},
            "row 0: superglue/record: column answers: ['Cy'] is",
        ),
    ],
)
def test_a_bad_row_is_named(name, changes, said):
    rows = {column: v for column, v in (TEXTS[name][0] | changes).items() if v is not ...}
    with pytest.raises(base.TaskError) as raised:
        task(name).encode(rows, tokenizer_of("tiny-bert"), 60)
    assert str(raised.value).startswith(said)


def test_the_second_text_has_to_tell_the_candidates_apart():
    content = base.load("superglue/copa").model_dump() | {"inputs": ["{candidate}", "{premise}"]}
    with pytest.raises(base.TaskError, match=r"the second needs \{candidate\}"):
        base.parse(content.pop("name"), content, "made up")


def test_a_family_without_the_head_is_refused_from_its_configuration(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(Unsupported, match="its family mamba has no head sequence_classification"):
        check_head(registry.facts(registry.source(str(tmp_path))), task("superglue/copa").head)
