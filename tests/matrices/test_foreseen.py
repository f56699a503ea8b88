"""A plan foresees what a run refuses, in the run's own words, from files alone."""

import importlib
import json
import shutil
from pathlib import Path

import pytest
from runs import USUAL, pretend

import tasks.base
from benchmark.engine import find_units
from benchmark.errors import Unsupported, UserError
from benchmark.matrices import foreseen, matrix
from benchmark.models import facts, layers, registry
from benchmark.run import recipe
from benchmark.twin.models import TWINS

ROWS = {"sentence": ["it is good", "it is bad"] * 8, "label": [1, 0] * 8}
FULL = USUAL.replace(", hift: {order: random}", "")


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


FAULTS = {
    "more tokens than positions": ("lr:", "max_length: 129, lr:", "129 is more than the positions"),
    "tokens and the strategy's own": (
        "full: {}",
        "prefix: {tokens: 100}",
        "128 and 100 of the strategy are more than the positions of mine",
    ),
    "fp16 on a CPU": ("lr:", "precision: fp16, lr:", "fp16 needs a CUDA device"),
    "a precision of other strategies": ("lr:", "precision: mixed_hi, lr:", "full has no precision"),
    "a head that the family lacks": ("glue/sst2", "generation/gsm8k", "bert has no head causal_lm"),
    "a new head that nothing trains": ("full: {}", "none: {}", "would be new and random on mine"),
    "more rows than there are": ("lr:", "train_examples: 17, lr:", "more than the 16 examples of"),
    "held-out rows that are not there": (
        "lr:",
        "train_examples: 9, dev_examples: 8, lr:",
        "train_examples 9 and dev_examples 8 are more than the 16 examples of train",
    ),
    "rows beside shots": (
        "glue/sst2",
        "fewshot/sst2_k16",
        "fewshot/sst2_k16: takes 16 rows of each class: give no train_examples",
    ),
    "a column that is missing": (
        "",
        "",
        "glue/sst2: column sentence is missing; the data has text",
    ),
    "a group of more units than there are": (
        "full: {}",
        "hift: {group_size: 7}",
        "group_size 7 is more than the 6 units: embeddings, 4 blocks and head",
    ),
    "more blocks than there are": (
        "full: {}",
        "top_n: {blocks: 5}",
        "more than the 4 of the model",
    ),
    "targets that no layer has": (
        "full: {}",
        "lora: {targets: [c_attn, qery]}",
        "c_attn, qery: the model has no layer with such a name (valid: ",
    ),
    "targets of an adapter": (
        "full: {}",
        "hift: {adapter: oft, adapter_options: {targets: [qury]}}",
        'qury: the model has no layer with such a name (did you mean "query"?)',
    ),
    "one target of a projection": (
        "full: {}",
        "galore: {rank: 2, targets: [query, valeu]}",
        'no layer that is named valeu (did you mean "value"?)',
    ),
    "a configuration cut short": ("", "", "model mine: cannot be loaded: "),
    "a configuration that is a list": ("", "", "model mine: cannot be loaded: "),
    "weights cut short": ("", "", "model mine: cannot be loaded: "),
}
SAME_WORDS = frozenset(FAULTS) - {
    *("a configuration cut short", "a configuration that is a list", "weights cut short")
}
"""Faults that plan and run say alike; of damaged files each says what it sees."""


@pytest.fixture
def spoilt(write, mirror):
    """Write the matrix, model and data of a fault; returns the spec of its one run."""

    def spoilt(name):
        old, new, _ = FAULTS[name]
        shutil.copytree(registry.source("tiny-bert").location, "mine")
        text = FULL.replace("tiny-bert", "mine").replace("twin", "mirror")
        text = text.replace(old, new, 1)
        if name == "rows beside shots":
            text = text.replace("lr:", "train_examples: 3, lr:")
        columns = ROWS
        if name == "a column that is missing":
            columns = {"text": ROWS["sentence"], "label": ROWS["label"]}
        mirror(train=columns, validation=columns)
        mirror(dataset="openai/gsm8k", config="main", train=ROWS, test=ROWS)
        if name == "a configuration cut short":
            cut(Path("mine/config.json"))
        if name == "a configuration that is a list":
            Path("mine/config.json").write_text("[]")
        if name == "weights cut short":
            cut(Path("mine/model.safetensors"))
        write(text)
        return matrix.load(Path("m.yaml")).cells[0].runs()[0]

    return spoilt


@pytest.mark.parametrize("name", FAULTS)
def test_plan_says_what_the_run_would_say(spoilt, cli, name):
    spec, said = spoilt(name), FAULTS[name][2]
    code, out, err = cli("plan", "m.yaml", "--format", "json")
    (line,) = (line for line in err.splitlines() if said in line)
    status, _, reason = line.removesuffix(f" (for {spec.label})").partition(": ")
    assert code == 0 and json.loads(out)[0]["state"] == status
    with pytest.raises(UserError) as refused:
        recipe.run(spec, Path("results"))
    assert status == ("unsupported" if refused.type is Unsupported else "refused")
    if name in SAME_WORDS:
        assert str(refused.value) == reason
    assert not Path("results").exists()


def test_what_is_foreseen_is_recorded_without_a_process(
    spoilt, cli, in_process, monkeypatch, empty_store
):
    spoilt("more rows than there are")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///foreseen.db")
    shutil.copy(empty_store, "foreseen.db")
    in_process(lambda: pytest.fail("a process was started"))
    code, _, err = cli("run", "m.yaml")
    assert code == 2 and "\n1 refused; mend what was refused\n" in err
    Path("m.yaml").write_text(Path("m.yaml").read_text().replace("examples: 17", "examples: 16"))
    in_process(pretend())
    assert cli("run", "m.yaml")[0] == 0


@pytest.mark.parametrize("name", TWINS)
def test_the_facts_of_the_files_are_those_of_transformers(name):
    source = registry.source(name)
    of_files = facts.of_folder(name, Path(source.location))
    assert of_files == registry.facts(source, registry.load_tokenizer(source))
    assert of_files.heads == {*TWINS[name].heads}


@pytest.mark.parametrize("adapter", tasks.base.ADAPTERS)
def test_the_head_of_an_adapter_is_in_the_table(adapter):
    module, _, name = tasks.base.ADAPTERS[adapter][0].partition(":")
    assert getattr(importlib.import_module(module), name).head == tasks.base.HEADS[adapter]


@pytest.mark.parametrize("name", TWINS)
def test_the_layers_of_the_files_are_those_that_the_model_has(name):
    """By the engine's units, and by the names of the loaded model's modules, new heads included."""
    source = registry.source(name)
    found = layers.of_folder(name, Path(source.location))
    for head in TWINS[name].heads:
        model = registry.load_model(source, head, 0)
        units = find_units(model)
        assert sum(unit.kind == "block" for unit in units) == found.blocks
        assert len(units) <= found.blocks + 2
        for path, module in model.named_modules():
            if any(True for _ in module.parameters(recurse=False)):
                assert not found.lack(path) and not found.lack(path.rpartition(".")[2])
    assert found.lack("no_such_layer")


FINE = "lora: {targets: [classifier, key]}, hift: {group_size: 6}, top_n: {blocks: 4}"


def test_a_run_without_fault_has_none(write):
    write(FULL.replace("full: {}", FINE))
    registry.source("tiny-bert")
    for cell in matrix.load(Path("m.yaml")).cells:
        assert foreseen.fault(cell.runs()[0]) is None
