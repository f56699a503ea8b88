"""Runs on several devices: here processes of the CPU, which talk through gloo."""

import subprocess
import sys
import time

import psutil
import pytest
import torch
from factories import make_spec
from runs import gone

from benchmark.matrices import forecast
from benchmark.run import recipe

USUAL = {
    "model": "tiny-llama",  # without dropout, whose masks would differ
    "task": "generation/squad",
    "data": "twin",
    "epochs": 2.0,
    "train_examples": 17,  # the last batch of an epoch has one example, and so a rank has none
    "eval_examples": 2,
    "batch_size": 4,
    "max_length": 128,
    "lr": 1e-3,
    "keep": "last",
}
HIFT = {"strategy": "hift", "options": {"group_size": 2}}
FULL = {"strategy": "full"}
DIVIDED = {"sharded": True}


def weights(record, folder):
    from safetensors.torch import load_file

    (file,) = (folder / record.model_folder).glob("*.safetensors")
    return load_file(file)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "shared"), [(HIFT, {}), (HIFT, DIVIDED), (FULL, DIVIDED)], ids=str
)
def test_two_devices_end_where_one_does(tmp_path, method, shared):
    """The answers have unequal numbers of tokens, over which the loss of a whole batch is the mean."""
    ends = {}
    for devices, more in ((1, {}), (2, shared)):
        spec = make_spec(**USUAL, **method, **more, devices=devices, accumulate=2, clip=0.5)
        rows = []
        record = recipe.run(spec, tmp_path / str(devices), rows.append)
        steps = [row for row in rows if row["event"] == "step"]
        ends[devices] = record, weights(record, tmp_path / str(devices)), steps
    (one, its, rows), (two, theirs, pairs) = ends[1], ends[2]
    assert its.keys() == theirs.keys()
    assert max((its[name] - theirs[name]).abs().max() for name in its) < 2e-5
    assert two.spec["devices"] == 2 and one.spec["devices"] == 1
    for key in ("loss", "lr"):
        assert [row[key] for row in pairs] == pytest.approx([row[key] for row in rows], abs=1e-4)
    for key in ("step", "group", "tokens", "trainable_ratio"):
        assert [row[key] for row in pairs] == [row[key] for row in rows]
    assert two.train.examples == one.train.examples == 34 and two.params == one.params
    assert two.memory.peak_allocated < one.memory.peak_allocated
    assert two.spec["sharded"] == bool(shared)
    assert two.memory.peak_allocated <= forecast.peaks(spec, "cpu")[0]
    for part in ("parameters", "gradients", "optimizer_state", "host_state"):
        share = 0.5 if shared else 1
        assert getattr(two.memory, part) == pytest.approx(
            share * getattr(one.memory, part), rel=0.02
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"strategy": "full", "select": "best_loss", "task": "glue/sst2"},
        {"strategy": "lora", "select": "best"},  # by the answers that it generates
    ],
    ids=str,
)
def test_what_is_seen_along_a_divided_training_is_what_one_device_sees(tmp_path, fields):
    looks = {"dev_examples": 6, "eval_every": 2, "keep": "best", "lr": 1e-2}
    ends = []
    for number, more in enumerate(({}, {"devices": 2, **DIVIDED})):
        spec = make_spec(**{**USUAL, **looks, **fields, **more})
        record = recipe.run(spec, tmp_path / str(number))
        ends.append((record, weights(record, tmp_path / str(number))))
    (one, its), (two, theirs) = ends
    assert max((its[name] - theirs[name]).abs().max() for name in its) < 2e-4
    assert len(one.evaluations) == len(two.evaluations) > 2
    for a, b in zip(one.evaluations, two.evaluations, strict=True):
        for key in ("step", "dev_loss", "dev_score", "score", "tokens"):
            assert getattr(a, key) == pytest.approx(getattr(b, key), abs=1e-3)
    assert two.scores.main == pytest.approx(one.scores.main)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [HIFT, {**HIFT, **DIVIDED, "dev_examples": 6, "select": "best_loss", "keep": "best"}],
    ids=str,
)
def test_a_run_on_two_devices_that_is_killed_goes_on_and_ends_with_the_same_bytes(tmp_path, fields):
    """With dropout: what a rank draws depends on its place in the training, not on what it drew before."""
    usual = {**USUAL, "model": "tiny-gpt2", "checkpoint_every": 2, "devices": 2}
    spec = make_spec(**{**usual, **fields})
    whole = recipe.run(spec, tmp_path / "whole")
    scratch = tmp_path / "scratch"
    script = (
        "import sys; from pathlib import Path; from benchmark.run import recipe\n"
        "from benchmark.records.spec import RunSpec\n"
        "recipe.run(RunSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]), scratch=Path(sys.argv[3]))"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script, spec.model_dump_json(), tmp_path / "again", scratch]
    )
    while not list(scratch.glob("*.unfinished/checkpoint.pt")):
        assert run.poll() is None
        time.sleep(0.005)
    others = psutil.Process(run.pid).children()
    run.kill()
    run.wait()
    assert len(others) == 1 and gone(others[0].pid)
    again = recipe.run(spec, tmp_path / "again", scratch=scratch)
    assert again.times.resumed_from and again.times.resumed_from[0] >= 2
    assert again.scores == whole.scores and again.params == whole.params
    first, second = (
        weights(record, tmp_path / name) for record, name in ((whole, "whole"), (again, "again"))
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
