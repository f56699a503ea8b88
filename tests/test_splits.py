"""Which rows a run draws: of another dataset, of a slice, without some, so many of each class."""


import pytest
from factories import make_spec

import tasks.base
from benchmark import data, models
from benchmark.errors import UserError
from benchmark.twin import data as twins


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer(models.source("tiny-bert"))


def load(name, tokenizer, **fields):
    spec = make_spec(task=name, model="tiny-bert", data="twin", max_length=96, **fields)
    return data.load(spec, tasks.base.adapter(tasks.base.load(name)), tokenizer)


def test_ax_trains_on_mnli_and_is_scored_on_the_diagnostic_set(tokenizer):
    found = load("glue/ax", tokenizer, train_examples=20)
    diagnostics = twins.tables("pietrolesci/glue_diagnostics", "default").splits["test"]
    assert found.evaluation.references == [row["label"] for row in diagnostics]
    assert found.evaluation.split == "test"
    mnli = load("glue/mnli", tokenizer, train_examples=20)
    assert found.train.ids == mnli.train.ids
    assert found.fingerprint != mnli.fingerprint


def test_both_datasets_are_named_and_both_are_looked_for(mirror):
    task = tasks.base.load("glue/ax")
    assert task.dataset.title == "nyu-mll/glue/mnli + pietrolesci/glue_diagnostics/default"
    assert task.dataset.pinned == f"{task.dataset.revision} + refs/convert/parquet"
    mnli = tasks.base.load("glue/mnli").dataset
    assert (mnli.title, mnli.pinned) == ("nyu-mll/glue/mnli", mnli.revision)
    root = mirror(config="mnli", train={"premise": ["a"], "hypothesis": ["b"], "label": [0]})
    with pytest.raises(UserError, match=f"^{root}: has no dataset pietrolesci/glue_diagnostics"):
        data.check(task, "mirror")
