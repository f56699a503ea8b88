"""Differences between runs that are compared, and the settings of a matrix."""

import dataclasses

import pytest
from factories import make_record, make_spec

from benchmark.records import consistency


def seeds_of(label="full", strategy="full", **fields):
    return [make_spec(label=label, strategy=strategy, seed=s, **fields) for s in range(3)]


def test_equal_runs_have_no_differences():
    specs = seeds_of() + seeds_of("hift", "hift", lr=3e-4, options={"group_size": 1})
    specs += seeds_of(task="glue/mrpc", train_examples=1000)
    assert consistency.differences([make_record(spec) for spec in specs]) == []


@pytest.mark.parametrize(
    ("change", "field", "scope"),
    [
        ({"spec": {"batch_size": 32}}, "batch_size", "glue/sst2"),
        ({"spec": {"train_examples": 7}}, "train_examples", "glue/sst2"),
        ({"inputs": {"dataset_source": "twin"}}, "dataset source", "all runs"),
        ({"inputs": {"dataset_fingerprint": "x"}}, "dataset fingerprint", "glue/sst2, seed 0"),
        ({"inputs": {"model_fingerprint": "x"}}, "model fingerprint", "minilm, glue/sst2, seed 0"),
        (
            {"environment": {"packages": {"torch": "2.12", "transformers": "5.0"}}},
            "environment packages.torch",
            "all runs",
        ),
        ({"environment": {"cpu": "another"}}, "environment cpu", "all runs"),
        ({"code": {"dirty": True}}, "code dirty", "all runs"),
        ({"code": {"git_sha": "fff"}}, "code git_sha", "all runs"),
        ({"scores": {"n": 100}}, "score n", "glue/sst2"),
    ],
)
def test_each_difference_is_found_and_names_its_runs(change, field, scope):
    one, other = make_record(make_spec()), make_record(make_spec(strategy="hift"))
    for name, values in change.items():
        old = getattr(other, name)
        new = old | values if isinstance(old, dict) else dataclasses.replace(old, **values)
        other = dataclasses.replace(other, **{name: new})
    (difference,) = consistency.differences([one, other])
    assert (difference.field, difference.scope) == (field, scope)
    assert [runs for _, runs in difference.values] == [(one.run_id,), (other.run_id,)]


def test_learning_rates_may_differ_between_cells_and_not_between_seeds():
    rates = [(0, 1e-4), (1, 3e-4)]
    records = [make_record(make_spec(seed=seed, lr=lr)) for seed, lr in rates]
    (difference,) = consistency.differences(records)
    assert (difference.field, difference.scope) == ("lr", "glue/sst2, minilm, full")


@pytest.mark.parametrize("field", ["clip", "options", "optimizer_options"])
def test_a_record_older_than_a_field_counts_as_having_its_default(field):
    old = make_record(make_spec(seed=1))
    spec = {name: value for name, value in old.spec.items() if name != field}
    old = dataclasses.replace(old, spec=spec)
    assert consistency.differences([make_record(), old]) == []


def test_settings_show_what_a_matrix_sets_per_task():
    specs = [make_spec(train_examples=2000), make_spec(task="glue/mrpc", train_examples=1000)]
    settings = consistency.settings([make_record(spec) for spec in specs])
    assert settings["train_examples"] == {"2000": ("glue/sst2",), "1000": ("glue/mrpc",)}
    assert settings["batch_size"] == {"16": ("glue/mrpc", "glue/sst2")}
    assert "lr" not in settings and "seed" not in settings
