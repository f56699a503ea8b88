"""A checkpoint must have every weight outside a new head, else it is refused; compared with the files."""

import json
import shutil
import textwrap

import pytest
import torch
import transformers
from engine.families import CONFIGS, build, heads
from safetensors.torch import load_file, save_file

from benchmark.errors import UserError
from benchmark.models import registry, weights
from benchmark.records import record as records

CLASSIFICATION = "sequence_classification"
HEADS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMaskedLM",
    "ForCausalLM",
    "LMHeadModel",
)
PAIRS = [(family, head) for family, head in heads() if head in HEADS]


@pytest.fixture
def local(tmp_path):
    """A local model folder: a copy of the tiny BERT."""
    return shutil.copytree(registry.source("tiny-bert").location, tmp_path / "mine")


def load(folder, head=CLASSIFICATION, **arguments):
    arguments = arguments or {"num_labels": 2}
    return registry.load(registry.source(str(folder)), head, 0, **arguments)


def rewrite(folder, change):
    """Replace the folder's weights by `change` of them; weights are dicts by name."""
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


def without(part):
    return lambda stored: {name: t for name, t in stored.items() if part not in name}


def reloaded(kind, folder):
    """The model loaded from `folder`, and `weights.initialised` of it."""
    model, loading = kind.from_pretrained(
        folder, output_loading_info=True, ignore_mismatched_sizes=True
    )
    return model, weights.initialised("mine", model, loading)


# --- what is new ----------------------------------------------------------------------------------


@pytest.mark.sparse
@pytest.mark.parametrize(("family", "head"), PAIRS)
def test_of_a_base_model_s_checkpoint_the_head_alone_is_new(family, head, tmp_path):
    name = CONFIGS[family][0] + head
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    base = build(family, name).base_model
    base.save_pretrained(tmp_path)
    model, new = reloaded(kind, tmp_path)
    of_base = {id(p) for p in model.base_model.parameters()}
    assert new == sorted(name for name, p in model.named_parameters() if id(p) not in of_base)
    state = model.base_model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in base.state_dict().items())


@pytest.mark.sparse
@pytest.mark.parametrize(("family", "head"), PAIRS)
def test_of_a_checkpoint_with_the_head_nothing_is_new(family, head, tmp_path):
    name = CONFIGS[family][0] + head
    saved = build(family, name)
    saved.save_pretrained(tmp_path)
    model, new = reloaded(getattr(transformers, name), tmp_path)
    assert new == []
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in saved.state_dict().items())


def test_a_pooler_that_the_checkpoint_was_saved_without_is_new_with_the_head(tmp_path):
    build("bert", "BertForMaskedLM").save_pretrained(tmp_path)
    _, new = reloaded(transformers.BertForSequenceClassification, tmp_path)
    pooler = ["bert.pooler.dense.bias", "bert.pooler.dense.weight"]
    assert new == [*pooler, "classifier.bias", "classifier.weight"]


def test_a_head_for_another_number_of_labels_is_new(local):
    load(local).model.save_pretrained(local)
    assert load(local).initialised == []
    assert load(local, num_labels=3).initialised == ["classifier.bias", "classifier.weight"]


# --- what is refused ------------------------------------------------------------------------------


def misnamed(stored):
    return {f"model.{name}": tensor for name, tensor in stored.items()}


def narrowed(stored):
    name = "embeddings.word_embeddings.weight"
    return stored | {name: stored[name][:990].contiguous()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            misnamed,
            "lacks 69 weights that must be in it: bert.embeddings.LayerNorm.bias, "
            "bert.embeddings.LayerNorm.weight, bert.embeddings.position_embeddings.weight, …; "
            "it has model.embeddings.LayerNorm.bias",
        ),
        (
            without("layer.0."),
            "lacks 16 weights that must be in it: "
            "bert.encoder.layer.0.attention.output.LayerNorm.bias, "
            "bert.encoder.layer.0.attention.output.LayerNorm.weight, "
            "bert.encoder.layer.0.attention.output.dense.bias, …",
        ),
        (
            without("layer.3.output.dense.bias"),
            "lacks 1 weight that must be in it: bert.encoder.layer.3.output.dense.bias",
        ),
        (
            narrowed,
            "has 1 weight of another shape than config.json says: "
            "bert.embeddings.word_embeddings.weight (the first is 990 × 64, not 1000 × 64)",
        ),
    ],
    ids=["renamed", "no layer 0", "one weight", "narrowed"],
)
def test_weights_that_do_not_match_are_refused(local, change, message):
    rewrite(local, change)
    with pytest.raises(UserError) as refused:
        load(local)
    assert str(refused.value) == f"model {local}: the checkpoint {message}"


def test_a_checkpoint_of_the_class_itself_must_hold_its_head(local):
    """A zero-shot score with a missing head would be the score of random weights."""
    load(local).model.save_pretrained(local)
    rewrite(local, without("classifier.weight"))
    with pytest.raises(UserError, match=r"lacks 1 weight .*: classifier\.weight"):
        load(local)


# --- in a run -------------------------------------------------------------------------------------

MATRIX = """
    name: m
    defaults: {model: MODEL, data: twin, max_steps: 1, lr: 1.0e-3, seeds: [0], max_length: 32,
               train_examples: 16, eval_examples: 8, batch_size: 8}
    tasks: [glue/sst2]
    strategies: [full]
"""


def test_a_run_on_weights_that_do_not_match_is_bad_input(write, refused_by_run, local):
    rewrite(local, misnamed)
    write(textwrap.dedent(MATRIX.replace("MODEL", str(local))))
    assert f"model {local}: the checkpoint lacks 69 weights" in refused_by_run()


def test_the_record_says_what_was_new(go, in_process, results):
    in_process()
    go(textwrap.dedent(MATRIX.replace("MODEL", "tiny-bert").replace("name: m", "name: made_up")))
    (path,) = results.glob("*.json")
    assert records.load(path).inputs.initialised == ["classifier.bias", "classifier.weight"]
    older = json.loads(path.read_text())
    del older["inputs"]["initialised"]
    path.write_text(json.dumps(older))
    assert records.load(path).inputs.initialised is None
    older["inputs"]["initialised"] = ["classifier.bias", 3]
    path.write_text(json.dumps(older))
    with pytest.raises(UserError, match=r"inputs\.initialised"):
        records.load(path)
