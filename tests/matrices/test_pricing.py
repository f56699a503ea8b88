"""Pricing a matrix: what is missing, by folders that the libraries themselves wrote, and the totals."""

import json
import textwrap
from pathlib import Path
from unittest.mock import Mock

import pytest
from factories import make_record, make_spec
from hub_caches import cache_dataset, cache_weights

from benchmark.errors import UserError
from benchmark.matrices import forecast, matrix, planning, pricing
from benchmark.records import record

HUB = """
    defaults: {model: roberta-base, data: hub, max_steps: 10, lr: 1.0e-3, seeds: [0, 1]}
    tasks: [glue/sst2]
    strategies: [full, hift]
"""


def priced(home, text):
    path = home / "m.yaml"
    path.write_text(textwrap.dedent(text))
    planned = planning.plan(matrix.load(path), home / "results")
    missing = pricing.absent(planned)
    return pricing.rows(planned, missing), list(pricing.summary(planned, missing))


def lacks(home, text=HUB):
    rows, _ = priced(home, text)
    (only,) = {row["lacks"] for row in rows}
    return only


# --- what is missing ------------------------------------------------------------------------------


def test_empty_caches_lack_everything_and_say_where_they_looked(home):
    rows, said = priced(home, HUB)
    assert {row["lacks"] for row in rows} == {"data, weights"}
    assert said == [
        "2 cells, 4 runs (0 of them lr trials), 40 steps; still to do: 4 runs, 40 steps",
        f"missing data: nyu-mll/glue (sst2) is not in {home / 'datasets'} (for glue/sst2)",
        f"missing weights: FacebookAI/roberta-base is not in {home / 'hub'} as safetensors "
        "(for roberta-base)",
        "not pinned: model roberta-base: main is a branch or tag, which may move; records name its commit",
    ]


def test_a_run_that_its_strategy_refuses_is_unsupported_needs_nothing_and_says_why(home):
    text = """
        defaults: {model: roberta-base, data: hub, max_steps: 10, lr: 1.0e-3, precision: mixed_hi}
        tasks: [glue/sst2]
        strategies: [lora]
    """
    (row,), said = priced(home, text)
    assert (row["state"], row["lacks"]) == ("unsupported", None)
    assert said[0].endswith("still to do: 0 runs, 0 steps")
    assert said[1].startswith("unsupported: strategy lora has no precision mixed_hi, only fp32")
    assert said[1].endswith("(for lora)") and len(said) == 2


def test_a_dataset_counts_at_its_pinned_commit_alone(home):
    cache_weights(home, "FacebookAI/roberta-base", "config.json", "model.safetensors")
    cache_dataset(home, "glue/sst2", commit="another")
    assert lacks(home) == "data"
    cache_dataset(home, "glue/mrpc")
    assert lacks(home) == "data"
    cache_dataset(home, "glue/sst2")
    assert lacks(home) is None


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("fewshot/trec_k16", "tiny-bert"),
        ("generation/e2e_nlg", "tiny-gpt2"),
        ("mezo/copa", "tiny-gpt2"),
    ],
)
def test_a_branch_counts_at_any_commit_and_names_in_any_spelling(home, task, model):
    text = HUB.replace("glue/sst2", task).replace("roberta-base", model)
    before = lacks(home, text)
    cache_dataset(home, task, commit="0123abc")
    assert (before, lacks(home, text)) == ("data", None)


def test_both_datasets_of_a_task_are_needed(home):
    text = HUB.replace("glue/sst2", "glue/ax").replace("roberta-base", "tiny-bert")
    cache_dataset(home, "glue/mnli")
    _, said = priced(home, text)
    assert said[1].startswith("missing data: pietrolesci/glue_diagnostics (")


@pytest.mark.parametrize(
    ("files", "index", "there"),
    [
        (["config.json"], None, False),
        (["model.safetensors"], None, False),
        (["config.json", "pytorch_model.bin"], None, False),
        (["config.json", "a.safetensors"], ["a.safetensors", "b.safetensors"], False),
        (["config.json", "a.safetensors", "b.safetensors"], ["a.safetensors"] * 2, True),
        (["config.json", "model.safetensors"], None, True),
    ],
)
def test_weights_count_when_every_file_of_them_is_there(home, files, index, there):
    cache_dataset(home, "glue/sst2")
    cache_weights(home, "FacebookAI/roberta-base", *files, index=index)
    assert lacks(home) == (None if there else "weights")


def test_a_model_revision_is_that_revision(home):
    cache_dataset(home, "glue/sst2")
    cache_weights(home, "FacebookAI/roberta-base", "config.json", "model.safetensors", commit="old")
    assert lacks(home, HUB.replace("data: hub", "data: hub, model_revision: old")) is None
    assert lacks(home, HUB.replace("data: hub", "data: hub, model_revision: new")) == "weights"


def test_a_mirror_without_the_folder_and_one_with_it(home, monkeypatch):
    text = HUB.replace("hub", "mirror").replace("roberta-base", "tiny-bert")
    _, said = priced(home, text)
    assert "needs a folder laid out like the Hub" in said[1]
    monkeypatch.setenv("HIFT_DATA_ROOT", str(home / "mirror"))
    (home / "mirror" / "a" / "b").mkdir(parents=True)
    _, said = priced(home, text)
    assert "has no dataset nyu-mll/glue" in said[1]
    file = home / "mirror" / "nyu-mll" / "glue" / "sst2" / "train.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"PAR1 rows PAR")
    _, said = priced(home, text)
    assert "damaged or cut short" in said[1]
    file.write_bytes(b"PAR1 rows PAR1")
    assert lacks(home, text) is None


def test_a_local_folder_without_a_model_and_a_name_that_is_none(home, monkeypatch):
    monkeypatch.chdir(home)
    (home / "mine").mkdir()
    text = HUB.replace("hub", "twin")
    for name, why in (("mine", "has no config.json"), ("roberta-bse", 'did you mean "roberta-')):
        _, said = priced(home, text.replace("roberta-base", name))
        assert said[1].startswith("missing weights: ") and why in said[1]
    (home / "mine" / "config.json").write_text("{}")
    assert lacks(home, text.replace("roberta-base", "mine")) is None


def test_twins_lack_nothing_and_are_not_built(home, monkeypatch):
    monkeypatch.setenv("HIFT_CACHE", str(home / "cache"))
    assert lacks(home, HUB.replace("hub", "twin").replace("roberta-base", "tiny-opt")) is None
    assert not (home / "cache").exists()


# --- what is left ---------------------------------------------------------------------------------


def test_a_run_on_record_costs_and_lacks_nothing_more(home):
    priced(home, HUB)
    spec = matrix.load(home / "m.yaml").cells[0].runs()[0]
    record.write(make_record(spec), home / "results" / spec.matrix / f"{spec.run_id}.json")
    rows, said = priced(home, HUB)
    assert [row["lacks"] for row in rows] == [None] + ["data, weights"] * 3
    assert said[0].endswith("40 steps; still to do: 3 runs, 30 steps")


def test_a_searched_rate_is_priced_before_it_is_known(home):
    text = HUB.replace("lr: 1.0e-3", "search: {lr: [1.0e-3, 2.0e-3], examples: 50}")
    rows, said = priced(home, text)
    assert [row["steps"] for row in rows] == [10] * 8
    assert [row["state"] for row in rows] == (["missing"] * 2 + ["waiting"] * 2) * 2
    assert said[0].startswith("2 cells, 8 runs (4 of them lr trials), 80 steps")


def test_without_training_there_are_no_steps(home):
    text = HUB.replace("glue/sst2", "mezo/sst2").replace("[full, hift]", "{none: {}}")
    rows, _ = priced(home, text)
    assert [(row["steps"], row["lr"]) for row in rows] == [(0, None)] * 2


def test_the_command_prints_the_table_alone_on_stdout(home, cli, monkeypatch):
    monkeypatch.chdir(home)
    Path("m.yaml").write_text(textwrap.dedent(HUB))
    code, out, err = cli("plan", "m.yaml", "--format", "json")
    assert code == 0 and [row["lacks"] for row in json.loads(out)] == ["data, weights"] * 4
    assert err.splitlines()[1].startswith("missing data: ")


def test_the_command_takes_a_mirror(home, cli, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("HIFT_DATA_ROOT", "")  # restored behind the command, which sets it
    Path("m.yaml").write_text(textwrap.dedent(HUB.replace("hub", "mirror")))
    (home / "elsewhere").mkdir()
    _, _, err = cli("plan", "m.yaml", "--data-root", "elsewhere")
    assert f"{home / 'elsewhere'}: has no dataset nyu-mll/glue" in err


# --- peak memory ----------------------------------------------------------------------------------

TWO_TASKS = """
    defaults: {model: tiny-opt, data: twin, max_steps: 10, lr: 1.0e-3, seeds: [0, 1]}
    tasks: [mezo/sst2, mezo/boolq]
    strategies: {zero_shot: {strategy: none}, full: {}, hift: {}}
"""


@pytest.fixture
def planned_memory(home, cli, monkeypatch):
    """`plan` of TWO_TASKS with a made-up prediction; returns its exit code, rows and stderr."""

    def plan(predict, *arguments):
        monkeypatch.chdir(home)
        monkeypatch.setattr(forecast, "simulated", predict)
        Path("m.yaml").write_text(textwrap.dedent(TWO_TASKS))
        code, out, err = cli("plan", "m.yaml", "--format", "json", *arguments)
        return code, json.loads(out) if out else None, err

    return plan


def made_up(spec):
    return {"none": None, "full": 3 * forecast.GIB, "hift": 2 * forecast.GIB}[spec.strategy]


def test_each_cell_is_predicted_once_and_every_run_shows_it(planned_memory):
    asked = []
    _, rows, err = planned_memory(lambda spec: asked.append(spec) or made_up(spec), "--memory")
    assert len(asked) == 6 and len(rows) == 12
    assert [row["peak_gib"] for row in rows[:6]] == [None] * 2 + [3.0] * 2 + [2.0] * 2
    assert "fits" not in rows[0]
    assert err.splitlines()[1:-1] == [
        "peak memory: tiny-opt full up to 3 GiB (mezo/sst2)",
        "peak memory: tiny-opt hift up to 2 GiB (mezo/sst2)",
    ]


@pytest.mark.parametrize(
    ("budget", "fits", "warned"),
    [
        ("2.5GiB", [False, True], ["full"]),
        ("3GiB", [True, True], []),
        ("3GB", [False, True], ["full"]),
        ("1048576", [False, False], ["full", "hift"]),
    ],
)
def test_a_budget_warns_of_the_cells_that_are_above_it(planned_memory, budget, fits, warned):
    code, rows, err = planned_memory(made_up, "--budget", budget)
    assert code == 0
    assert [row["fits"] for row in rows[:6:2]] == [None, *fits]
    said = [line for line in err.splitlines() if line.startswith("will not fit in ")]
    assert [line.partition(": ")[2] for line in said] == [
        f"tiny-opt {method} on mezo/sst2, mezo/boolq" for method in warned
    ]


@pytest.mark.parametrize(
    "budget", ["", "a lot", "-3GiB", "0", "24XB", "GiB", "1e9", "24 GiB or so"]
)
def test_a_budget_that_is_none_is_refused(planned_memory, budget):
    code, rows, err = planned_memory(made_up, "--budget", budget)
    assert (code, rows) == (2, None)
    assert err.startswith(f"hift-bench: budget {budget!r} is not an amount of memory")
    assert err.count("\n") == 1


def test_what_cannot_be_predicted_is_said_and_the_rest_is_there(planned_memory):
    def predict(spec):
        if spec.strategy == "full":
            raise UserError("made up")
        return made_up(spec)

    code, rows, err = planned_memory(predict, "--budget", "1GiB")
    assert code == 0 and [row["peak_gib"] for row in rows[:6:2]] == [None, None, 2.0]
    assert err.splitlines()[-2] == (
        "peak memory not predicted: made up (for tiny-opt full on mezo/sst2, tiny-opt full on mezo/boolq)"
    )


@pytest.mark.parametrize(
    ("task", "batch", "head", "labels"),
    [
        ("mezo/cb", 12, "causal_lm", 2),  # three candidates an example, all of them in the loss
        ("mezo/copa", 4, "causal_lm", 2),  # of two candidates only the right one
        ("glue/mnli", 4, "sequence_classification", 3),
        ("glue/stsb", 4, "sequence_classification", 1),
        ("superglue/copa", 8, "sequence_classification", 1),
        ("fewshot/sst2_k16", 4, "masked_lm", 2),
    ],
)
def test_the_simulated_step_is_the_runs(monkeypatch, task, batch, head, labels):
    from benchmark.memory import simulate

    asked = []
    monkeypatch.setattr(
        simulate, "peak", lambda setting, device: asked.append(setting) or Mock(total=7, host=3)
    )
    spec = make_spec(
        **{"task": task, "strategy": "hift", "options": {"group_size": 2}, "optimizer": "sgdm"},
        **{"batch_size": 4, "accumulate": 2, "max_length": 48, "precision": "mixed_hi"},
        checkpointing=True,
    )
    assert forecast.simulated(spec) == 7 and forecast.peaks(spec, "cpu") == (7, 3)
    setting, other = asked
    assert forecast.placing(spec, "cpu") == (7, 3)
    asked.clear()
    assert forecast.placing(make_spec(model="tiny-bert"), "cpu") is None and not asked
    assert setting == other and setting.checkpointing
    assert (setting.batch_size, setting.head, setting.labels) == (batch, head, labels)
    assert (setting.seq_len, setting.precision, setting.optimizer) == (48, "mixed_hi", "sgdm")
    assert (setting.strategy, setting.options) == ("hift", {"group_size": 2})


def test_without_training_there_is_no_step_to_simulate():
    spec = make_spec(strategy="none", lr=None, epochs=None, batch_size=16)
    assert forecast.simulated(spec) is None
