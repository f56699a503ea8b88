"""Token ids of the few-shot prompts, against LM-BFF's algorithm written out from its description.

princeton-nlp/LM-BFF src/dataset.py `tokenize_multipart_input`, which princeton-nlp/MeZO's medium_models
share; the templates are those of MeZO's run_fewshot.sh.
"""

import pytest
from datasets import load_dataset
from tokenizers import AddedToken
from transformers import AutoTokenizer
from twin_rows import SHARED, task, twin_rows
from twin_tables import tokenizer_of

from tasks import base

SENTENCE = "*cls**sent_0*_It_was*mask*.*sep+*"
PAIR = "*cls**sent-_0*?*mask*,*+sentl_1**sep+*"
REFERENCE = {  # template, columns, first_sent_limit, max_seq_length
    "sst2": (SENTENCE, ["sentence"], None, 128),
    "sst5": (SENTENCE, ["text"], 110, 128),
    "snli": (PAIR, ["premise", "hypothesis"], None, 256),
    "mnli": (PAIR, ["premise", "hypothesis"], 240, 256),
    "rte": (PAIR, ["sentence1", "sentence2"], 240, 256),
    "trec": ("*cls**mask*:*+sent_0**sep+*", ["text"], 110, 128),
}


def reference_ids(name, row, tokenizer, max_length=None):
    """What the algorithm makes of a row; None where it refuses the row, whose mask is cut off.

    Between two stars of a template stands a special token, a sentence, or text with "_" for a blank. A
    sentence's number follows its "_"; "l" before that makes its first letter small, "-" takes its last letter
    away, and "+" puts a blank before it.
    """
    template, columns, limit, usual = REFERENCE[name]
    special = {
        "cls": tokenizer.cls_token_id,
        "mask": tokenizer.mask_token_id,
        "sep+": tokenizer.sep_token_id,
    }
    ids = []
    for piece in template.split("*"):
        kind, _, number = piece.rpartition("_")
        if piece in special:
            ids.append(special[piece])
        elif "sent" in kind:
            sentence = row[columns[int(number)]]
            if "l" in kind:
                sentence = sentence[:1].lower() + sentence[1:]
            if "-" in kind:
                sentence = sentence[:-1]
            if "+" in kind:
                sentence = " " + sentence
            found = tokenizer.encode(sentence, add_special_tokens=False)
            ids += found[:limit] if number == "0" else found
        elif len(piece) == 1:
            ids.append(tokenizer.convert_tokens_to_ids(piece))
        else:
            ids += tokenizer.encode(piece.replace("_", " "), add_special_tokens=False)
    ids = ids[: max_length or usual]
    return ids if tokenizer.mask_token_id in ids else None


def differing(name, rows, tokenizer, max_length=None):
    """The rows whose ids are not the reference's, and how many there are in all."""
    rows = {**rows, task(f"fewshot/{name}_k16").config.label: [0] * len(next(iter(rows.values())))}
    length = max_length or REFERENCE[name][3]
    found = task(f"fewshot/{name}_k16").encode(rows, tokenizer, length)["input_ids"]
    each = base.each(rows)
    expected = [reference_ids(name, row, tokenizer, length) for row in each]
    assert None not in expected
    wrong = [row for row, a, b in zip(each, found, expected, strict=True) if a != b]
    return wrong, len(each)


@pytest.fixture(scope="module")
def roberta():
    """RoBERTa's byte pairs, which are GPT-2's, with its special tokens; the ids are other numbers."""
    folder = SHARED / "models" / "gpt2-tokenizer"
    if not folder.is_dir():
        pytest.skip("GPT-2's tokenizer is not beside the checkout")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    marks = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
    tokenizer.add_special_tokens(marks | {"mask_token": AddedToken("<mask>", lstrip=True)})
    return tokenizer


def real(dataset, config, split):
    if not (SHARED / "data").is_dir():
        pytest.skip("the real data is not beside the checkout")
    return load_dataset(str(SHARED / "data" / dataset), config)[split]


def test_every_row_of_sst2(roberta):
    rows = real("nyu-mll/glue", "sst2", "validation")
    wrong, n = differing("sst2", {"sentence": rows["sentence"]}, roberta)
    assert (wrong, n) == ([], 872)
    assert all(sentence.endswith(" ") for sentence in rows["sentence"])
    blank, it = roberta.convert_tokens_to_ids(["Ġ", "ĠIt"])
    adapter = task("fewshot/sst2_k16")
    for ids in adapter.encode({**rows[:50]}, roberta, 128)["input_ids"]:
        at = len(ids) - 1 - ids[::-1].index(it)
        assert ids[at - 1] == blank, "the sentence's last blank is a token before It"


@pytest.mark.parametrize("name", ["rte", "mnli", "snli"])
def test_real_pairs(roberta, name):
    """MRPC's pairs end in quotes and brackets, which stick to a question mark read with them."""
    one, other = REFERENCE[name][1]
    pairs = real("nyu-mll/glue", "mrpc", "validation")
    wrong, n = differing(name, {one: pairs["sentence1"], other: pairs["sentence2"]}, roberta)
    assert (wrong, n) == ([], 500)
    assert sum(text[-2] == '"' or text[-1] == '"' for text in pairs["sentence1"]) > 20
    pairs = real("aps/super_glue", "rte", "train")
    wrong, n = differing(name, {one: pairs["premise"], other: pairs["hypothesis"]}, roberta)
    assert (wrong, n) == ([], 16)


@pytest.mark.sparse
@pytest.mark.parametrize("model", ["tiny-roberta", "tiny-bert"])
@pytest.mark.parametrize("name", REFERENCE)
def test_the_twins(name, model):
    adapter, tokenizer = task(f"fewshot/{name}_k16"), tokenizer_of(model)
    words = [
        word
        for word in ("the", "of", "and", "is", "it", "to", "in", "on", "a", "that")
        if len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1
    ]  # one mask, as there
    content = adapter.config.model_dump() | {"words": words[: len(adapter.config.words)]}
    adapter = base.adapter(base.parse(content.pop("name"), content, "made up"))
    rows = twin_rows(adapter.config, n=50)
    found = adapter.encode(rows, tokenizer, REFERENCE[name][3])["input_ids"]
    assert found == [reference_ids(name, row, tokenizer) for row in base.each(rows)]


def long_row(name):
    """The adapter, and a row whose first sentence has 400 tokens, alone and as columns."""
    adapter = task(f"fewshot/{name}_k16")
    texts = ["One two three. " * 100, "Four five six. " * 20]
    row = dict(zip(REFERENCE[name][1], texts, strict=False))
    return adapter, row, {**{k: [v] for k, v in row.items()}, adapter.config.label: [0]}


@pytest.mark.parametrize("name", REFERENCE)
def test_what_does_not_fit_is_cut_where_the_reference_cuts(roberta, name):
    """The first sentence to its limit, then the end of the whole."""
    adapter, row, rows = long_row(name)
    at = reference_ids(name, row, roberta, 1000).index(roberta.mask_token_id)
    for length in (at + 1, at + 2, at + 10):  # the mask is the last token, then not any more
        encoded = adapter.encode(rows, roberta, length)
        assert encoded["input_ids"] == [reference_ids(name, row, roberta, length)]
    whole = adapter.encode(rows, roberta, 1000)
    assert whole["input_ids"] == [reference_ids(name, row, roberta, 1000)]
    assert whole["truncated"] == [adapter.config.limit is not None]


@pytest.mark.parametrize("name", ["sst2", "snli", "rte"])
def test_where_the_reference_loses_the_mask_the_first_sentence_is_cut(roberta, name):
    adapter, row, rows = long_row(name)
    first = adapter.config.cut
    (least,) = adapter.encode({**rows, first: ["One two"]}, roberta, 1000)["input_ids"]
    after = least[least.index(roberta.mask_token_id) :]
    for length in (len(least), 200):
        assert reference_ids(name, row, roberta, length) is None
        (ids,) = adapter.encode(rows, roberta, length)["input_ids"]
        assert len(ids) == length and ids[-len(after) :] == after
        assert (
            ids[:3] == [roberta.cls_token_id, *roberta.convert_tokens_to_ids(["One", "Ġtwo"])][:3]
        )
    cut = adapter.encode(rows, roberta, 3)
    (ids,), (needs,) = cut["input_ids"], cut["needs"]
    before = least.index(roberta.mask_token_id)
    assert ids == [least[0], least[before - 1], roberta.mask_token_id], "the last words before it"
    assert adapter.encode(rows, roberta, needs)["needs"] == [needs]
    assert roberta.mask_token_id in adapter.encode(rows, roberta, needs)["input_ids"][0]
