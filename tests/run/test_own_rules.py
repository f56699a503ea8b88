"""Runs of strategies with an update rule of their own: what their records say of gradients and state."""

import csv

import pytest
from factories import make_spec

from benchmark.run import recipe

USUAL = {
    "model": "tiny-bert",
    "data": "twin",
    "epochs": None,
    "max_steps": 3,
    "train_examples": 16,
    "eval_examples": 8,
    "batch_size": 4,
    "max_length": 24,
    "lr": 1e-3,
}


def run(folder, **fields):
    return recipe.run(make_spec(**(USUAL | fields)), folder)


@pytest.mark.parametrize("strategy", ["mezo", "lomo", "galore"])
def test_the_record_knows_their_gradients_and_their_state(strategy, tmp_path):
    done = run(tmp_path, strategy=strategy)
    assert done.status == "success" and done.train.steps == 3
    assert done.params.trainable_ever == done.params.total and done.params.groups == 1
    weights = done.memory.parameters
    expected = {
        "mezo": ({"gradients": 0, "optimizer_state": 0}),
        "lomo": ({"gradients": 4 * 1000 * 64, "optimizer_state": 0}),  # the token embeddings
        "galore": {},
    }[strategy]
    assert {name: getattr(done.memory, name) for name in expected} == expected
    if strategy == "galore":
        assert 0 < done.memory.optimizer_state < 2 * weights
    assert done.memory.peak_allocated > weights + done.memory.optimizer_state


def test_masked_answers_are_trained_on(tmp_path):
    task = {"task": "generation/gsm8k", "task_version": 2, "model": "tiny-gpt2"}
    size = {"max_steps": 2, "max_length": 128, "eval_examples": 1, "too_long": "truncate"}
    losses = {}
    for strategy in ("full", "mft"):
        done = run(tmp_path / strategy, strategy=strategy, **task, **size)
        assert done.status == "success"
        with open(tmp_path / strategy / done.curve, encoding="utf-8", newline="") as file:
            losses[strategy] = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses["full"] != losses["mft"]


@pytest.mark.parametrize("strategy", ["adalora", "lofit"])
def test_the_record_knows_what_they_leave_out_or_set_back(strategy, tmp_path):
    """AdaLoRA sets pruned values back to zero, which is no fault; LoFiT's unchosen offsets do not train."""
    done = run(tmp_path, strategy=strategy, max_steps=8)
    assert done.status == "success" and done.params.unmoved == []
    with open(tmp_path / done.curve, encoding="utf-8", newline="") as file:
        ratios = [float(row["trainable_ratio"]) for row in csv.DictReader(file)]
    assert (ratios[-1] < ratios[0]) == (strategy == "lofit")
