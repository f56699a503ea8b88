"""The matrices behind the score tables: they hold the published settings, and give every method as much."""

import csv
import functools
import itertools
import math
from pathlib import Path

import pytest

import tasks.base
from benchmark.matrices import foreseen, listing, matrix, planning
from benchmark.strategies import strategy_class

HELD = Path(__file__).parents[3] / "shared" / "paper"
SCORES = ("opt13b_superglue", "roberta_fewshot", "glue_roberta", "e2e_gpt2")
PACE = (
    *("train_examples", "dev_examples", "select"),
    *("epochs", "max_steps", "batch_size", "accumulate", "schedule", "warmup", "weight_decay"),
)
OURS = ("minilm_sst2", "minilm_optimizers", "minilm_peers", "smollm2_e2e", "smollm2_gsm8k")
ONE_SEARCH_SEED = ("minilm_peers", "smollm2_gsm8k")  # the most methods, and the longest runs


@functools.cache
def load(name):
    return matrix.load(listing.MATRICES / f"{name}.yaml")


def held(file):
    path = HELD / file
    if not path.is_file():
        pytest.skip("the reference files are not here")
    with open(path, encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def script(name):
    (row,) = [
        r for r in held("hift_script_hyperparameters.csv") if r["script"] == f"scripts/{name}"
    ]
    return row


def cells(name, **wanted):
    found = [c for c in load(name).cells if all(getattr(c, k) == v for k, v in wanted.items())]
    assert found, wanted
    return found


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCORES + OURS)
def test_it_loads_and_plans(name, tmp_path):
    planned = planning.plan(load(name), tmp_path)
    assert {p.state for p in planned} == {"missing", "waiting"}
    assert len({p.run_id for p in planned}) == len(planned)
    for p in planned:
        if p.spec and not p.spec.is_trial:
            assert (p.spec.lr is not None) == strategy_class(p.spec.strategy).trains


@pytest.mark.parametrize("name", SCORES + OURS)
def test_every_method_that_trains_gets_as_many_rates_seeds_and_rows(name):
    for task, model in {(c.task, c.model) for c in load(name).cells}:
        found = cells(name, task=task, model=model)
        trained = [c for c in found if strategy_class(c.strategy).trains]
        if name in SCORES:  # MeZO's steps and batch are its own there
            trained = [c for c in trained if c.strategy != "mezo"]
        budgets = {
            (
                c.seeds,
                c.search.seeds,
                c.search.examples,
                len(c.search.lr),
                *map(c.settings.get, PACE),
            )
            for c in trained
        }
        assert len(budgets) == 1, (task, model, budgets)
        assert len(trained[0].seeds) >= (2 if model == "smollm2-135m" else 3)
        assert len(trained[0].search.lr) >= 3


@pytest.mark.parametrize("name", OURS)
def test_our_own_grids_are_a_factor_of_two_apart_and_grow(name):
    for cell in load(name).cells:
        if cell.search is None:  # nothing trains
            continue
        rates = cell.search.lr
        assert len(rates) >= 5
        assert [b / a for a, b in itertools.pairwise(rates)] == pytest.approx(
            [2] * (len(rates) - 1)
        )
        assert cell.search.extend >= 3 and cell.search.choose == "lowest_within_error"
        assert len(cell.search.seeds) == (1 if name in ONE_SEARCH_SEED else 2)
        assert cell.search.examples >= (1000 if cell.model == "minilm" else 100)
        can_clip = "clip" not in strategy_class(cell.strategy).refuses
        assert cell.settings["warmup"] == 0.06
        assert cell.settings["clip"] == (1.0 if can_clip else None)
        assert foreseen.refusal(cell.trials()[0]) is None


@pytest.mark.parametrize("name", SCORES + OURS)
def test_its_header_says_where_the_numbers_are_from(name):
    text = (listing.MATRICES / f"{name}.yaml").read_text(encoding="utf-8")
    header = text[: text.index("\nname:")]
    assert header.startswith("# ") and f"benchmark/matrices/{name}.yaml" in header.splitlines()[0]
    assert "Our choice" in header and (
        "Published:" in header or "benchmark/tables/reference has" in header
    )


# --- against what is published --------------------------------------------------------------------


def test_glue_has_the_settings_of_the_scripts():
    for model in ("roberta-base", "roberta-large"):
        for name in ("robert_hier.sh", "roberta_hier.sh", "roberta_fpft.sh"):
            row = script(name)
            (full,) = cells("glue_roberta", task="glue/cola", model=model, label="full")
            (hift,) = cells("glue_roberta", task="glue/cola", model=model, label="hift")
            for cell in (full, hift):
                assert float(row["learning_rate"]) in cell.search.lr
                assert cell.settings["warmup"] == float(row["warmup_ratio"])
                assert cell.settings["weight_decay"] == float(row["weight_decay"])
                assert cell.settings["batch_size"] == int(row["per_device_train_batch_size"])
                assert cell.settings["max_length"] == int(row["max_seq_length"])
                assert cell.settings["precision"] == "fp32" and not row["fp16"]


def test_e2e_has_the_settings_of_the_script():
    row, earlier = script("gpt2_hier.sh"), script("gpt2_hier_lora.sh")
    for cell in load("e2e_gpt2").cells:
        settings = cell.settings
        assert settings["epochs"] == int(row["num_train_epochs"])
        assert settings["schedule"] == row["lr_scheduler_type"]
        assert settings["warmup"] == float(row["warmup_ratio"])
        assert settings["weight_decay"] == float(row["weight_decay"])
        assert settings["max_length"] == int(row["model_max_length"])
        assert settings["batch_size"] == int(earlier["per_device_train_batch_size"])
        assert settings["eval_batch_size"] == int(row["per_device_eval_batch_size"])
        if cell.label not in ("lora", "houlsby"):
            assert float(row["learning_rate"]) in cell.search.lr
    task = load("e2e_gpt2").cells[0].task
    assert tasks.base.load(task).decoding.beams == int(row["num_beams"])


def test_opt_has_mezos_budget():
    """MeZO, Table 16, and the sizes that its script leaves of the small sets."""
    sizes = {"mezo/cb": (150, 100), "mezo/copa": (300, 100), "mezo/wsc": (54, 500)}
    for cell in cells("opt13b_superglue", label="full"):
        assert cell.search.lr == (1e-5, 5e-5, 8e-5)
        train, dev = sizes.get(cell.task, (1000, 500))
        spec = cell.runs(1e-5)[0]
        assert (spec.dev_examples, cell.search.examples, spec.eval_examples) == (dev, dev, 1000)
        assert spec.batch_size * spec.accumulate == 8 and spec.weight_decay == 0
        assert planning.predicted_steps(spec) == 5 * math.ceil(train / 8)
        assert spec.select == "best_loss"  # finetune.sh: load_best_model_at_end, no metric named


@pytest.mark.parametrize(
    ("name", "steps", "batch", "rates"),
    [
        ("opt13b_superglue", 20_000, 16, {"mezo": {1e-7, 1e-6}, "mezo_lora": {5e-5, 1e-4}}),
        ("roberta_fewshot", 100_000, 64, {"mezo": {1e-6}, "mezo_lora": {1e-4}}),
    ],
)
def test_mezo_has_the_steps_batch_and_rates_of_its_scripts_and_as_many_rates_as_the_others(
    name, steps, batch, rates
):
    for label, published in rates.items():
        for cell in cells(name, label=label):
            (full,) = cells(name, label="full", task=cell.task)
            spec = cell.runs(1e-6)[0]
            assert published <= set(cell.search.lr) and len(cell.search.lr) == len(full.search.lr)
            assert (cell.seeds, cell.search.seeds) == (full.seeds, full.search.seeds)
            assert cell.search.examples == full.search.examples
            assert planning.predicted_steps(spec) == steps
            assert (spec.batch_size, spec.accumulate, spec.schedule) == (batch, 1, "constant")
            assert foreseen.refusal(spec) is None


def test_fewshot_holds_out_as_many_of_each_class_as_train():
    """MeZO, Table 15 and its medium_models: k rows of each class train and k more choose."""
    classes = {"sst2": 2, "sst5": 5, "snli": 3, "mnli": 3, "rte": 2, "trec": 6}
    for cell in cells("roberta_fewshot", label="full"):
        task, k = cell.task.removeprefix("fewshot/").split("_k")
        assert cell.search.lr == (1e-5, 3e-5, 5e-5)
        assert cell.seeds == (13, 21, 42, 87, 100)
        assert cell.settings["dev_examples"] == cell.search.examples == int(k) * classes[task]
        assert cell.settings["select"] == "best"  # src/trainer.py: default_dev_objective
        assert cell.settings["max_steps"] == 1000 and cell.settings["eval_examples"] == 1000


@pytest.mark.parametrize(
    ("name", "file", "models"),
    [
        ("opt13b_superglue", "hift_opt13b_superglue.csv", {"OPT-13B"}),
        ("roberta_fewshot", "mezo_roberta_large_fewshot.csv", {"RoBERTa-large"}),
        ("glue_roberta", "lora_glue_roberta.csv", {"RoBERTa-base", "RoBERTa-large"}),
        ("e2e_gpt2", "lora_e2e_gpt2.csv", {"GPT-2 medium", "GPT-2 large"}),
    ],
)
def test_every_task_and_model_of_the_printed_table_has_a_cell(name, file, models):
    table = held(file)[0]["table_id"]
    printed = [r for r in held(file) if r["table_id"] == table and r["model"] in models]
    wanted = {plain(r["task"]) for r in printed if r["task"] not in ("", "Avg.")}
    wanted = {task for task in wanted if not task.endswith("zeroshot")}
    ours = {plain(c.task.partition("/")[2].removesuffix("_test")) for c in load(name).cells}
    assert ours == wanted
    assert {plain(c.model) for c in load(name).cells} == {plain(model) for model in models}


def plain(name):
    return "".join(c for c in name.lower() if c.isalnum())
