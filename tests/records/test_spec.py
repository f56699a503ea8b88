"""RunSpec: the hash is stable, numbers are coerced, bad values are refused, run ids are file names."""

import re

import pytest
from factories import make_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError, create_model

from benchmark.records.spec import RunSpec

WRITTEN_OUT = {"optimizer": "adamw", "batch_size": 16, "accumulate": 1, "clip": None, "options": {}}


def test_the_hash_of_these_specs_never_changes():
    """Records hold the hash of their spec; if the hash changes, no committed record counts as done."""
    assert make_spec().hash == "dc668ea001e2"
    everything = make_spec(
        strategy="hift",
        options={"group_size": 2, "order": "random"},
        seed=3,
        train_examples=100,
        clip=1.0,
        epochs=None,
        max_steps=7,
        precision="bf16",
    )
    assert everything.hash == "133147a775b6"


def test_writing_a_default_out_or_adding_a_field_changes_no_hash():
    spec = make_spec()
    assert make_spec(**WRITTEN_OUT).hash == spec.hash
    grown = create_model("Grown", __base__=RunSpec, invented=(int, 3))
    assert grown(**spec.model_dump()).hash == spec.hash
    assert grown(**spec.model_dump(), invented=4).hash != spec.hash


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 1e-4},
        {"seed": 1},
        {"task_version": 2},
        {"model": "tiny-bert"},
        {"options": {"r": 4}},
        {"data": "twin"},
        {"epochs": 2},
        {"model_revision": "abc"},
    ],
)
def test_what_decides_the_outcome_is_in_the_hash(change):
    assert make_spec(**change).hash != make_spec().hash


def test_the_names_of_the_cell_are_not_in_the_hash():
    assert make_spec(matrix="other", label="other").hash == make_spec().hash


def test_numbers_are_coerced_as_yaml_may_write_them():
    spec = make_spec(lr="2e-5", epochs="3", batch_size="8")
    assert (spec.lr, spec.epochs, spec.batch_size) == (2e-5, 3.0, 8)
    assert spec.hash == make_spec(lr=2e-5, epochs=3.0, batch_size=8).hash


def test_a_spec_survives_the_file_that_the_runner_writes():
    spec = make_spec(lr="2e-5", options={"group_size": 2})
    again = RunSpec.model_validate_json(spec.model_dump_json())
    assert again == spec and again.hash == spec.hash


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"lr": "nan"},
        {"lr": 0},
        {"lr": -1e-5},
        {"lr": True},
        {"epochs": float("inf")},
        {"weight_decay": float("nan")},
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"batch_size": True},
        {"seed": -1},
        {"seed": 2**32},
        {"max_length": 2},
        {"epochs": None},
        {"max_steps": 5},
        {"warmup": 1.0},
        {"optimizer": "adamv"},
        {"score_on": "dev"},
        {"invented": 1},
    ],
)
def test_refused(wrong):
    with pytest.raises(ValidationError):
        make_spec(**wrong)


def test_frozen():
    with pytest.raises(ValidationError):
        make_spec().lr = 1.0


@settings(max_examples=30)
@given(
    task=st.text(min_size=1),
    model=st.text(min_size=1),
    label=st.text(min_size=1),
    seed=st.integers(0, 9),
)
def test_a_run_id_is_a_plain_file_name(task, model, label, seed):
    run_id = make_spec(task=task, model=model, label=label, seed=seed).run_id
    assert re.fullmatch(r"[A-Za-z0-9.+_-]+", run_id)
    assert not run_id.startswith((".", "-"))


def test_run_ids():
    assert make_spec(model="/home/me/my model").run_id == "glue-sst2_home-me-my-model_full_s0"
    trial = make_spec(lr=2e-5, score_on="dev", dev_examples=10)
    assert trial.is_trial and trial.run_id == "glue-sst2_minilm_full_s0_lr2e-05"


@pytest.mark.parametrize(
    ("fields", "rows", "steps"),
    [
        ({"epochs": 3, "batch_size": 32}, 2000, 189),  # 62 whole batches and one of 16
        ({"epochs": 1, "batch_size": 16, "accumulate": 4}, 100, 2),  # 7 batches: windows of 4 and 3
        ({"epochs": 0.5, "batch_size": 10}, 100, 5),
        ({"epochs": 0.001, "batch_size": 10}, 100, 1),
        ({"epochs": None, "max_steps": 7}, 2000, 7),
    ],
)
def test_steps_counted_by_hand(fields, rows, steps):
    assert make_spec(**fields).steps(rows) == steps
