"""Task YAMLs: every one is whole, and what is wrong in one is said by file and key."""

import subprocess
import sys

import pytest
import yaml

from tasks import base, metrics


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """An empty folder of task YAMLs; `write(**changes)` puts a changed SST-2 there as made/up."""
    usual = yaml.safe_load((base.CONFIGS / "glue" / "sst2.yaml").read_text())
    monkeypatch.setattr(base, "CONFIGS", tmp_path)
    base.load.cache_clear()

    def write(**changes):
        path = tmp_path / "made" / "up.yaml"
        path.parent.mkdir(exist_ok=True)
        content = usual | changes
        path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not ...}))
        return path

    yield write
    base.load.cache_clear()


@pytest.mark.parametrize("name", base.names())
def test_every_task_is_whole(name):
    task = base.load(name)
    assert task.name == name
    assert set(task.metrics) <= set(metrics.available())
    assert task.main.partition(".")[0] in task.metrics
    main = task.main.partition(".")[0]
    assert task.main_version == f"{main}@{metrics.version(main)}"
    assert len(task.dataset.revision) == 40 or task.dataset.revision == "refs/convert/parquet"
    assert all(size > 0 for size in task.dataset.sizes.values())
    assert task.card.paper.startswith("https://")
    base.adapter(task)


@pytest.mark.parametrize(
    "name", [name for name in base.names() if base.load(name).adapter == "classification"]
)
def test_the_main_score_of_a_classification_is_among_what_it_scores(name):
    task = base.load(name)
    assert len(task.labels) == len(set(task.labels)) >= 2
    references = [0, 1, 0]
    if task.question_id:
        references = [{"question": str(i // 2), "label": r} for i, r in enumerate(references)]
    scores = base.adapter(task).score([0, 1, 1], references)
    assert 0 <= scores[task.main_key] <= 1


def test_names_are_paths_below_the_configs(configs):
    configs()
    assert base.names() == ["made/up"]
    assert base.load("made/up").name == "made/up"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labelz": []}, "labelz: Extra inputs are not permitted"),
        ({"label": ...}, "label: Field required"),
        ({"version": 0}, "version: Input should be greater than or equal to 1"),
        ({"inputs": "sentence"}, "inputs: Input should be a valid tuple"),
        ({"dataset": {"id": "a/b"}}, "dataset.config: Field required"),
        ({"adapter": "clasification"}, "adapter: 'clasification' is not one of"),
        ({"labels": ["a", "a"]}, "labels: a, a are not all different"),
        ({"metrics": ["acuracy"]}, 'metrics: no metric "acuracy" (did you mean "accuracy"?)'),
        ({"main": "f2"}, "main: f2 belongs to none of the metrics"),
        (
            {"adapter": "masked", "inputs": ..., "labels": ..., "words": ["a", "b"]}
            | {"prompt": "{sentence} {mask}", "cut": "sentense"},
            "cut: sentense is no column of the prompt",
        ),
    ],
)
def test_a_wrong_task_is_said_by_file_and_key(configs, changes, said):
    path = configs(**changes)
    with pytest.raises(base.TaskError) as raised:
        base.load("made/up")
    assert str(raised.value).startswith(f"{path}: {said}")


def write(folder, **files):
    """YAMLs of tasks, named with "__" for "/"."""
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(content))


def test_an_included_task_gives_what_the_including_one_does_not_say(configs, tmp_path):
    """Through two files; mappings are merged to any depth, all else is replaced."""
    whole = yaml.safe_load(configs().read_text())
    write(
        tmp_path,
        made__middle={"include": "made/up", "version": 7, "dataset": {"sizes": {"train": 5}}},
        made__top={
            "include": "made/middle",
            "labels": ["bad", "fair", "good"],
            "dataset": {"splits": {"eval": "test"}},
            "card": {"checked": "anew"},
        },
    )
    whole["version"], whole["labels"] = 7, ["bad", "fair", "good"]
    whole["dataset"]["sizes"]["train"], whole["dataset"]["splits"]["eval"] = 5, "test"
    whole["card"]["checked"] = "anew"
    assert base.load("made/top") == base.parse("made/top", whole, "written out")


@pytest.mark.parametrize(
    ("files", "at", "said"),
    [
        (
            {"top": {"include": "made/upp"}},
            "top",
            'include: no task "made/upp" (did you mean "made/up"?)',
        ),
        (
            {"top": {"include": "next"}, "next": {"include": "top"}},
            "next",
            'include: circular, as "top" is already in the chain',
        ),
        ({"top": {"include": "top"}}, "top", 'include: circular, as "top" is already in the chain'),
        ({"top": {"include": ["made/up"]}}, "top", "include: no task \"['made/up']\""),
        (
            {"top": {"include": "made/up", "lables": []}},
            "top",
            'lables: Extra inputs are not permitted (did you mean "labels"?)',
        ),
        (
            {"top": {"include": "next"}, "next": {"include": "made/up", "dataset": {"sise": {}}}},
            "next",
            'dataset.sise: Extra inputs are not permitted (did you mean "sizes"?)',
        ),
        (
            {"top": {"include": "next", "dataset": {"shots": None}}}
            | {"next": {"include": "made/up", "dataset": {"sizes": {"train": "many"}}}},
            "next",
            "dataset.sizes.train: Input should be a valid integer",
        ),
        ({"top": {"adapter": "masked", "include": "made/up"}}, "top", "prompt: Field required"),
        ({"top": {"include": "next"}, "next": ["a"]}, "next", "['a'] is no mapping"),
    ],
)
def test_a_fault_in_a_chain_is_said_by_the_file_that_holds_it(configs, tmp_path, files, at, said):
    configs()
    write(tmp_path, **files)
    with pytest.raises(base.TaskError) as raised:
        base.load("top")
    assert str(raised.value).startswith(f"{tmp_path / at}.yaml: {said}")
    assert "\n" not in str(raised.value)


def test_sizes_and_splits_for_training_and_evaluation_are_required(configs):
    usual = yaml.safe_load(configs().read_text())["dataset"]
    configs(dataset=usual | {"sizes": {"train": 3}})
    with pytest.raises(base.TaskError, match="splits and sizes need an entry for eval"):
        base.load("made/up")


def test_an_unknown_task_is_a_key_error():
    with pytest.raises(KeyError):
        base.load("glue/sst3")


def test_a_task_error_says_the_row_and_keeps_the_reason_apart():
    error = base.TaskError("column label: bad", row=3)
    assert (str(error), error.reason, error.row) == ("row 3: column label: bad", error.reason, 3)
    assert error.reason == "column label: bad"
    assert str(base.TaskError("no such thing")) == "no such thing"


def test_tasks_never_import_benchmark_nor_torch_before_an_adapter():
    found = "import sys, tasks.base; tasks.base.names(); print([m for m in sys.modules if m.split('.')[0] in "
    found += "('benchmark', 'torch', 'transformers')])"
    done = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
