"""Which rows a run draws: of another dataset, of a slice, without some, so many of each class."""

from collections import Counter

import pytest
from factories import make_spec

import tasks.base
from benchmark.data import drawing, examples, sources, splits
from benchmark.errors import UserError
from benchmark.matrices import planning
from benchmark.models import registry
from benchmark.run.settings import data_settings
from benchmark.twin import data as twins


@pytest.fixture(scope="module")
def tokenizer():
    return registry.load_tokenizer(registry.source("tiny-bert"))


def load(name, tokenizer, **fields):
    spec = make_spec(task=name, model="tiny-bert", data="twin", max_length=96, **fields)
    return examples.load(data_settings(spec), tasks.base.adapter(tasks.base.load(name)), tokenizer)


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
    assert task.dataset.revisions == f"{task.dataset.revision} + refs/convert/parquet"
    mnli = tasks.base.load("glue/mnli").dataset
    assert (mnli.title, mnli.revisions) == ("nyu-mll/glue/mnli", mnli.revision)
    root = mirror(config="mnli", train={"premise": ["a"], "hypothesis": ["b"], "label": [0]})
    with pytest.raises(UserError, match=f"^{root}: has no dataset pietrolesci/glue_diagnostics"):
        sources.check(task, "mirror")


def columns(labels, **more):
    return {"sentence": [f"row {i}" for i in range(len(labels))], "label": list(labels), **more}


@pytest.fixture
def loaded(mirror, tokenizer):
    """The data of a made-up SST-2 whose YAML's `dataset` is changed."""

    def loaded(train, changes, evaluation=None, **fields):
        mirror(train=train, validation=evaluation or columns([0, 1]))
        task = tasks.base.load("glue/sst2").model_dump()
        task["dataset"] |= changes
        if "shots" in changes:  # of two classes, drawn as the reference does
            task["dataset"] |= {"held_out": "random", "nested": False}
            task["dataset"]["sizes"]["train"] = 2 * changes["shots"]["count"]
        adapter = tasks.base.adapter(tasks.base.parse(task.pop("name"), task, "made up"))
        spec = make_spec(model="tiny-bert", data="mirror", max_length=16, **fields)
        return examples.load(data_settings(spec), adapter, tokenizer)

    return loaded


@pytest.fixture
def drawn(loaded, tokenizer):
    """The sentences of the rows that are drawn from it."""

    def drawn(*arguments, **fields):
        found = loaded(*arguments, **fields)
        return [
            [tokenizer.decode(ids, skip_special_tokens=True) for ids in part.encoded["input_ids"]]
            for part in (found.train, found.evaluation, found.development or found.train)
        ]

    return drawn


def test_slices_are_rows_by_number_and_share_none(drawn):
    splits = {"train": "train[6:]", "eval": "train[:6]"}
    train, evaluation, _ = drawn(columns([0, 1] * 10), {"splits": splits})
    assert evaluation == [f"row {i}" for i in range(6)]
    assert sorted(train) == sorted(f"row {i}" for i in range(6, 20))
    middle, *_ = drawn(columns([0, 1] * 10), {"splits": splits | {"train": "train[3:5]"}})
    assert sorted(middle) == ["row 3", "row 4"]


def test_rows_without_a_label_are_no_examples(drawn):
    labels = [0, -1, 1, -1, 0, 1]
    train, evaluation, _ = drawn(columns(labels), {"without": {"label": -1}}, columns([-1, 1]))
    assert sorted(train) == ["row 0", "row 2", "row 4", "row 5"]
    assert evaluation == ["row 1"]
    with pytest.raises(UserError, match="glue/sst2: no examples in validation"):
        drawn(columns(labels), {"without": {"label": -1}}, columns([-1, -1]))


def test_every_row_that_is_read_is_used_or_counted_as_left_out(loaded):
    found = loaded(columns([0, -1, 1, -1]), {"without": {"label": -1}}, columns([-1, 1]))
    used = len(found.train.ids) + len(found.evaluation.ids)
    assert found.left_out == 3 and sum(found.read.values()) == used + found.left_out
    assert loaded(columns([0, 1]), {}).left_out == 0


def test_a_bad_row_is_named_by_its_number_in_the_split(drawn):
    labels = [-1, 0, -1, 1, 7, -1]
    with pytest.raises(UserError, match=r"row 4 of train: glue/sst2: column label: label 7"):
        drawn(columns(labels), {"without": {"label": -1}})
    slices = {"train": "train[:2]", "eval": "validation[3:]"}
    with pytest.raises(UserError, match=r"row 4 of validation: glue/sst2: column label"):
        drawn(columns([0, 1]), {"splits": slices}, columns([0, 1, 0, 1, 7]))


@pytest.mark.parametrize("seed", [13, 21, 42])
def test_shots_are_so_many_of_each_class_by_the_seed(drawn, seed):
    labels = [0] * 30 + [1] * 12 + [2] * 20
    kind = {f"row {i}": label for i, label in enumerate(labels)}
    few = {"shots": {"per": "label", "count": 5}, "without": {"label": 2}}

    def draw(seed):
        return drawn(columns(labels), few, seed=seed, dev_examples=6, score_on="dev")

    train, _, held_out = draw(seed)
    assert Counter(kind[row] for row in train) == {0: 5, 1: 5}
    assert Counter(kind[row] for row in held_out) == {0: 3, 1: 3}
    assert not set(train) & set(held_out)
    assert draw(seed)[0] == train
    assert sorted(draw(seed + 1)[0]) != sorted(train)


def test_a_class_with_fewer_rows_is_refused_unless_all_of_it_is_meant(drawn):
    labels = [0] * 30 + [1] * 6
    shots = {"per": "label", "count": 5}
    with pytest.raises(
        UserError, match=r"class 1 has 6 rows of train\[:40\], fewer than the 8 wanted"
    ):
        splits = {"train": "train[:40]", "eval": "validation"}
        drawn(columns(labels), {"shots": shots, "splits": splits}, dev_examples=6, score_on="dev")
    all_of = {"shots": shots | {"all_of": [1]}}
    train, _, held_out = drawn(columns(labels), all_of, dev_examples=6, score_on="dev")
    kind = {f"row {i}": label for i, label in enumerate(labels)}
    assert Counter(kind[row] for row in train) == {0: 5, 1: 5}
    assert Counter(kind[row] for row in held_out) == {0: 3, 1: 1}


def test_a_class_without_a_row_or_a_row_without_a_class_is_refused(drawn):
    shots = {"shots": {"per": "label", "count": 2}}
    with pytest.raises(UserError, match="column label: train has no class but 1, too few for 4"):
        drawn(columns([1] * 9), shots)
    with pytest.raises(UserError, match="column label: class None has 1 rows of train, fewer"):
        drawn(columns([0, 1, None, 0, 1]), shots)


@pytest.mark.parametrize(
    ("changes", "fields", "said"),
    [
        (
            {"splits": {"train": "trian", "eval": "validation"}},
            {},
            "glue/sst2: split trian does not",
        ),
        (
            {"splits": {"train": "train[a]", "eval": "validation"}},
            {},
            r"glue/sst2: split train\[a\] do",
        ),
        ({"without": {"lable": -1}}, {}, 'train has no column lable .did you mean "label"'),
        (
            {"shots": {"per": "lable", "count": 2}},
            {},
            'train has no column lable .did you mean "label"',
        ),
        (
            {"shots": {"per": "label", "count": 2}},
            {"train_examples": 4},
            "2 rows of each class: give no train_examples",
        ),
        ({"shots": {"per": "label", "count": 2}}, {"dev_examples": 3}, "a multiple of 2"),
        (
            {"splits": {"train": "train[:3]", "eval": "validation"}},
            {"train_examples": 4},
            r"3 examples of train\[:3\]",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(drawn, changes, fields, said):
    with pytest.raises(UserError, match=said):
        drawn(
            columns([0, 1] * 10),
            changes,
            score_on="dev" if "dev_examples" in fields else "eval",
            **fields,
        )


FEWSHOT = [
    name
    for name in tasks.base.names()
    if tasks.base.load(name).dataset.shots
    and twins.serve(tasks.base.load(name).dataset.origins.values())
]


@pytest.mark.parametrize("name", FEWSHOT)
def test_a_few_shot_task_draws_what_its_card_says(name, monkeypatch):
    """Every class so many times, and as many held out; MeZO takes what there is of TREC's rare classes."""
    task = tasks.base.load(name)
    shots, classes = task.dataset.shots, len(task.words)
    dev = shots.count * classes
    spec = make_spec(task=name, data="twin", dev_examples=dev, score_on="dev", seed=13, epochs=1)
    where, found, _ = sources.read(task, task.dataset, "twin")
    part = splits.part(found, task, "train", where)
    drawn = drawing.draw(spec, part.rows, part.rows, task, where)
    train, held_out = drawn.train, drawn.held_out
    labels = part.rows[shots.per][:]
    there = Counter(labels)
    trained = Counter(labels[i] for i in train)
    assert trained == {c: min(there[c], shots.count) for c in range(classes)}
    left = {c: min(there[c] - trained[c], shots.count) for c in range(classes)}
    assert Counter(labels[i] for i in held_out) == {c: n for c, n in left.items() if n}
    assert not set(train) & set(held_out)
    assert f"dev_examples: {dev} here" in task.card.checked
    assert len(train) == task.dataset.sizes["train"]
    assert planning.predicted_steps(spec) == spec.steps(len(train))
