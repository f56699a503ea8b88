"""What is held out shares no source with what trains, and looks like the evaluation split."""

import json
import random
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from factories import make_cells, make_record, make_spec, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import tasks.base
from benchmark.data import drawing, examples, overlap, sources, splits
from benchmark.errors import UserError
from benchmark.models import registry
from benchmark.records import jsonfile, record
from benchmark.records.record import Overlap
from benchmark.report.page import write_report
from benchmark.run.settings import data_settings
from benchmark.twin import data as twins

SHARED = Path(__file__).parents[3] / "shared" / "data"
GROUPED = {
    (dataset.id, dataset.config, str(dataset.group_by)): name
    for name in tasks.base.names()
    for dataset in [tasks.base.load(name).dataset]
    if dataset.group_by and twins.serve(dataset.origins.values())
}
"""What is held out in groups -> one of the tasks that read it."""


def real(dataset):
    return pytest.mark.skipif(
        not (SHARED / dataset).is_dir(), reason="no real data beside the checkout"
    )


@pytest.fixture(scope="module")
def tokenizer():
    return registry.load_tokenizer(registry.source("tiny-gpt2"))


@pytest.fixture
def of_real(monkeypatch):
    """The rows of train and of the evaluation split of a task, from the real data."""

    def of_real(name):
        monkeypatch.setenv("HIFT_DATA_ROOT", str(SHARED))
        task = tasks.base.load(name)
        where, found, _ = sources.read(task, task.dataset, "mirror")
        return [task, *(splits.part(found, task, role, where).rows for role in ("train", "eval"))]

    return of_real


def task_like(name, **dataset):
    """The task with other keys in its YAML's `dataset`."""
    content = tasks.base.load(name).model_dump(exclude={"name"})
    content["dataset"] |= dataset
    return tasks.base.parse(name, content, "made up")


def draw(task, train, evaluation=None, **fields):
    spec = make_spec(task=task.name, **fields)
    return drawing.draw(spec, train, evaluation or train, task, "here")


def inside(piece, whole):
    """Whether the words of one text are a run of the other's, found by trying every place."""
    piece, whole = piece.split(), whole.split()
    return any(whole[i : i + len(piece)] == piece for i in range(len(whole) - len(piece) + 1))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_source_overlap_whatever_the_groups_are(drawn):
    """Sizes are right to the row: what is held out, what trains, and what is set aside."""
    sources = drawn.draw(st.lists(st.integers(0, 6), min_size=4, max_size=40))
    rows = Dataset.from_dict(
        {
            "premise": [f"source  {n}" if i % 2 else f" source {n}" for i, n in enumerate(sources)],
            "hypothesis": [f"row {i % 5}" for i in range(len(sources))],
            "label": [0] * len(sources),
        }
    )
    by_group, seed = drawn.draw(st.booleans()), drawn.draw(st.integers(0, 5))
    task = task_like("glue/mnli", group_by="premise" if by_group else None)
    keys = [n if by_group else (n, i % 5) for i, n in enumerate(sources)]
    wanted = drawn.draw(st.integers(1, len(sources) - 1))
    try:
        found = draw(task, rows, dev_examples=wanted, seed=seed)
    except UserError as error:
        assert "glue/mnli" in str(error) and f"dev_examples {wanted}" in str(error)
        assert str(len(sources)) in str(error)
        # with one source fewer than there are, that many rows could not have been held out
        assert wanted > len(sources) - max(Counter(keys).values())
        return
    train, held_out = {keys[i] for i in found.train}, {keys[i] for i in found.held_out}
    assert not train & held_out
    assert len(found.held_out) == len({*found.held_out}) == wanted
    touched = [i for i, key in enumerate(keys) if key in held_out]
    assert found.set_aside == len(touched) - wanted
    assert sorted(found.train) == sorted({*range(len(keys))} - {*touched})
    assert found == draw(task, rows, dev_examples=wanted, seed=seed)
    if len(found.train) > 1:
        fewer = draw(
            task, rows, dev_examples=wanted, seed=seed, train_examples=len(found.train) - 1
        )
        assert fewer.train == found.train[:-1] and fewer.held_out == found.held_out


@pytest.mark.parametrize("seed", range(3))
def test_where_nothing_is_held_out_the_rows_are_the_seeds_permutation(seed):
    rows = Dataset.from_dict({"sentence": ["same"] * 30, "label": [0] * 30})
    found = draw(tasks.base.load("glue/sst2"), rows, seed=seed, train_examples=20)
    assert found.train == np.random.default_rng(seed).permutation(30).tolist()[:20]
    assert (found.held_out, found.set_aside) == ([], 0)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=6), min_size=1, max_size=12), st.data())
def test_overlap_of_pieces_is_found_as_by_trying_every_place(texts, drawn):
    texts = [" ".join(words) for words in texts]
    held = drawn.draw(st.sets(st.integers(0, len(texts) - 1), min_size=1, max_size=4))
    expected = {
        i
        for i, text in enumerate(texts)
        for h in held
        if texts[h] and text and (inside(text, texts[h]) or inside(texts[h], text))
    }
    found = overlap.nested(texts, held)
    assert {i for i in found if texts[i]} == expected


@settings(deadline=None, max_examples=8, derandomize=True)
@given(st.integers(0, 2**20), st.sampled_from([50, 100, 200]))
def test_lengths_overlap_those_of_the_evaluation_split(seed, wanted):
    """Kolmogorov-Smirnov, against scipy: within one stratum and the rounding of its share."""
    numbers = random.Random(seed)
    words = [f"w{i}" for i in range(500)]

    def split(n, mean, spread):
        lengths = [max(1, round(numbers.gauss(mean, spread))) for _ in range(n)]
        return Dataset.from_dict(
            {"sentence": [" ".join(numbers.choices(words, k=k)) for k in lengths], "label": [0] * n}
        )

    train, evaluation = split(2000, 12, 6), split(200, 14, 3)
    task = task_like("glue/sst2", nested=False)
    found = draw(task, train, evaluation, dev_examples=wanted, seed=seed)
    assert len(found.held_out) == wanted
    held_out = [len(train[i]["sentence"].split()) for i in found.held_out]
    expected = [len(text.split()) for text in evaluation["sentence"]]
    rounding = drawing.QUANTILES / wanted / 2
    far = stats.ks_2samp(held_out, expected).statistic
    assert far <= 1 / drawing.QUANTILES + rounding
    assert far < stats.ks_2samp([len(t.split()) for t in train["sentence"]], expected).statistic


def test_too_few_rows_of_a_length_are_refused_with_the_numbers():
    train = Dataset.from_dict({"sentence": ["a b"] * 9 + ["a b c d"], "label": [0] * 10})
    texts = [f"word{i}" + " and" * (1 + 2 * (i % 2)) for i in range(20)]
    evaluation = Dataset.from_dict({"sentence": texts, "label": [0] * 20})
    task = task_like("glue/sst2", nested=False)
    said = "here: glue/sst2: dev_examples 6 need 3 examples of 3 to 4 words; train has 1"
    with pytest.raises(UserError, match=said):
        draw(task, train, evaluation, dev_examples=6)
    task = tasks.base.load("generation/e2e_nlg")
    rows = {"meaning_representation": ["a", "a", "b", "b", "c"], "human_reference": list("12345")}
    said = "generation/e2e_nlg: dev_examples 4 need 4 examples; train has 3"
    with pytest.raises(UserError, match=said):
        draw(task, Dataset.from_dict(rows), dev_examples=4)
    said = "train_examples 9 and dev_examples 2 .* 5 examples of train, 3 groups by meaning_rep"
    with pytest.raises(UserError, match=said):
        draw(task, Dataset.from_dict(rows), dev_examples=2, train_examples=9)
    rows = Dataset.from_dict({"sentence": ["a b c", "a b", "b c", "d e"], "label": [0] * 4})
    with pytest.raises(UserError, match=r"train_examples 3 .* are set aside, as they share text"):
        draw(task_like("glue/sst2", held_out="random"), rows, dev_examples=1, train_examples=3)


@pytest.mark.parametrize(
    ("name", "dataset", "said"),
    [
        ("glue/mnli", {"group_by": "premiss"}, "group_by: premiss is none of the columns of the"),
        ("fewshot/sst2_k16", {"nested": True}, "dataset: shots: cannot be combined with"),
        ("generation/dart", {"group_by": None}, "merge_references: requires dataset.group_by"),
    ],
)
def test_keys_of_a_task_that_cannot_keep_out_overlap_are_refused(name, dataset, said):
    with pytest.raises(tasks.base.TaskError, match=f"made up: .*{said}"):
        task_like(name, **dataset)


def test_shots_hold_out_no_row_whose_input_trains():
    """Otherwise the rows are those that a draw by class alone gives."""
    texts = [f"question {i // 2}" for i in range(40)]
    rows = Dataset.from_dict({"sentence": texts, "label": [i // 20 for i in range(40)]})
    content = tasks.base.load("fewshot/sst2_k16").model_dump(exclude={"name"})
    content["dataset"] |= {
        "shots": {"per": "label", "count": 4},
        "sizes": {"train": 8, "eval": 872},
    }
    task = tasks.base.parse("fewshot/sst2_k16", content, "made up")
    for seed in range(5):
        found = draw(task, rows, dev_examples=8, seed=seed)
        order = np.random.default_rng(seed).permutation(40).tolist()
        by_class = [[i for i in order if i // 20 == label] for label in (0, 1)]
        assert {*found.train} == {i for same in by_class for i in same[:4]}
        trained = {texts[i] for i in found.train}
        left = [[i for i in same[4:] if texts[i] not in trained] for same in by_class]
        assert {*found.held_out} == {i for same in left for i in same[:4]}


@pytest.mark.parametrize("name", GROUPED.values())
def test_no_overlap_of_sources_in_any_data_that_has_them(name, tokenizer):
    """On the twin, through the whole of loading: as its record will say."""
    adapter = tasks.base.adapter(tasks.base.load(name))
    spec = make_spec(
        task=name, data="twin", model="tiny-gpt2", dev_examples=6, train_examples=12, max_length=512
    )
    if adapter.config.adapter == "spans":
        tokenizer = registry.load_tokenizer(registry.source("tiny-bert"))
    loaded = examples.load(data_settings(spec), adapter, tokenizer)
    assert len(loaded.development.ids) == len(loaded.development.references) == 6
    assert len(loaded.train.ids) == 12
    assert loaded.overlap_dev == Overlap(exact=0.0, group=0.0)


def test_overlap_is_counted_in_rows_that_are_the_same_and_in_sources(tokenizer, mirror):
    """Of four evaluation rows one stands in train, and a second shares its premise."""
    train = {"premise": ["a", "b", "c "], "hypothesis": ["x", "y", "z"], "label": [0, 1, 2]}
    evaluation = {"premise": ["c", "b", "d", "e"], "hypothesis": ["z", "x", "y", "z"]}
    mirror(config="mnli", train=train, validation_matched=evaluation | {"label": [2, 0, 1, 0]})
    adapter = tasks.base.adapter(tasks.base.load("glue/mnli"))
    spec = make_spec(task="glue/mnli", data="mirror", max_length=16)
    assert examples.load(data_settings(spec), adapter, tokenizer).overlap_eval == Overlap(
        exact=0.25, group=0.5
    )
    spec = make_spec(task="glue/mnli", data="mirror", max_length=16, lr=None, epochs=None)
    nothing_trains = examples.load(data_settings(spec), adapter, tokenizer)
    assert nothing_trains.overlap_eval == Overlap(exact=0.0, group=0.0)


def test_overlap_is_in_the_record_and_older_records_load():
    kept = {f.name: f.default for f in fields(record.Inputs)}
    assert (kept["overlap_eval"], kept["overlap_dev"], kept["set_aside"]) == (None, None, 0)
    text = json.dumps({"exact": 0.25, "group": 0.5})
    found = jsonfile.build(Overlap | None, json.loads(text), Path("r.json"))
    assert found == Overlap(exact=0.25, group=0.5)


@real("tuetschek/e2e_nlg")
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_real_e2e_has_no_overlap_and_an_example_per_group(seed, tokenizer, of_real):
    """Every held-out representation is one example with the references of all its rows."""
    task, train, _ = of_real("generation/e2e_nlg")
    found = draw(task, train, dev_examples=60, seed=seed)
    source, text = train["meaning_representation"][:], train["human_reference"][:]
    scored = {source[i] for i in found.held_out}
    assert len(scored) == 60 and not scored & {source[i] for i in found.train}
    assert len(found.train) + len(found.held_out) == len(train) and found.set_aside == 0
    few = {"train_examples": 20, "dev_examples": 60, "eval_examples": 2, "max_length": 512}
    spec = make_spec(task=task.name, seed=seed, **few)
    loaded = examples.load(data_settings(spec), tasks.base.adapter(task), tokenizer)
    expected = [[t for s, t in zip(source, text, strict=True) if s == one] for one in scored]
    assert sorted(loaded.development.references) == sorted(expected)
    assert loaded.overlap_dev == Overlap(exact=0.0, group=0.0)


@pytest.mark.slow
@real("nyu-mll/glue")
def test_real_sst2_held_out_rows_look_like_validation_without_overlap(of_real):
    task, train, evaluation = of_real("glue/sst2")
    texts = [" ".join(text.split()) for text in train["sentence"]]
    expected = [len(text.split()) for text in evaluation["sentence"]]
    found = draw(task, train, evaluation, dev_examples=1000, seed=1)
    held_out = [texts[i] for i in found.held_out]
    assert len(held_out) == 1000
    assert stats.ks_2samp([len(t.split()) for t in held_out], expected).statistic < 0.04
    assert len(found.train) + 1000 + found.set_aside == len(texts)
    used = {*found.train, *found.held_out}
    some = random.Random(0).sample
    for i in some(found.train, 200):
        assert not [t for t in held_out if f" {texts[i]} " in f" {t} "]
    trained = [f" {texts[i]} " for i in found.train]
    for text in some(held_out, 15):
        assert not [t for t in trained if f" {text} " in t]
    for i in some([i for i in range(len(texts)) if i not in used], 20):
        assert any(inside(texts[i], t) or inside(t, texts[i]) for t in held_out)


def test_the_report_names_tasks_with_overlap_and_no_other(tmp_path):
    """The most of a task's records: 3 % by source, 1 % by input."""

    def made_up(task, **shares):
        spec = make_spec(task=task)
        made = make_record(spec)
        inputs = replace(made.inputs, overlap_eval=Overlap(**shares))
        return spec, write_run(tmp_path / "results", replace(made, inputs=inputs), 5)

    specs, records = zip(
        made_up("glue/mnli", exact=0.01, group=0.03),
        made_up("glue/sst2", exact=0.0, group=0.0),
        strict=True,
    )
    index = write_report(
        name="made_up",
        cells=make_cells(specs),
        records=records,
        trials=(),
        folder=tmp_path / "results",
        out=tmp_path / "report",
    )
    page = (index.parent / "report.md").read_text()
    assert page.count("also occurs in the training set") == 1
    assert "glue/mnli: the source of 3.0% of the scored examples also occurs" in page
    assert "and the whole input of 1.0%" in page
