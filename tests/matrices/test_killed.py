"""A matrix that is killed again and again, by real signals, ends with the bytes of one that is not."""

import contextlib
import os
import random
import signal
import sqlite3
import time

import psutil
import pytest
from killing import checkpoint, ends_of, start
from runs import gone

MATRIX = """\
name: m
defaults: {model: tiny-bert, data: twin, max_steps: 48, train_examples: 20, eval_examples: 20, max_length: 32,
  batch_size: 4, lr: 1.0e-3, checkpoint_every: 2, seeds: [0, 1, 2, 3]}
tasks: [glue/sst2]
strategies: {hift: {}, full: {}, lora: {}, galore: {rank: 2}, lomo: {lr: 1.0e-2}, badam: {dwell: 3}}
"""
RUNS, CELLS = 24, 6
KILLS, SEED = int(os.environ.get("HIFT_KILLS", "4")), int(os.environ.get("HIFT_CHAOS_SEED", "4"))


@pytest.mark.chaos
def test_runs_that_are_killed_in_training_end_with_the_same_bytes_and_leave_nothing(tmp_path):
    """Each kill comes within a tenth of a second after a new checkpoint: of the runner, or of a process that
    one of its two workers has. The undisturbed matrix has one worker with as many threads."""
    print(f"HIFT_CHAOS_SEED={SEED}")
    assert start(tmp_path / "whole", MATRIX).wait() == 0
    broken, dice, runner, kills = tmp_path / "broken", random.Random(SEED), None, 0
    while kills < KILLS:
        if runner is None or runner.poll() is not None:
            assert runner is None or runner.poll() != 0, f"done after {kills} kills"
            runner = start(broken, MATRIX, "--workers", "2")
        before = checkpoint(broken)
        while checkpoint(broken) <= before and runner.poll() is None:
            time.sleep(0.005)
        if runner.poll() is not None:  # what was killed has failed, and nothing else was left
            continue
        time.sleep(dice.random() / 10)
        family = psutil.Process(runner.pid).children(recursive=True)
        number = (signal.SIGKILL, signal.SIGTERM)[kills % 2]
        if kills % 4 < 2 or not family:
            runner.send_signal(number)
            assert runner.wait(600) in (130 if number == signal.SIGTERM else -number, 0, 1)
            assert all(gone(process.pid) for process in family)
        else:
            with contextlib.suppress(psutil.NoSuchProcess):
                dice.choice(family).send_signal(number)
        kills += 1
        print(
            f"{kills} kills, {len(list((broken / 'results/m').glob('*.json')))} records", flush=True
        )
    # beside the runner that is left, if any; what fails in either after this start is left to the next
    start(broken, MATRIX, "--workers", "2").wait(600)
    runner.wait(600)
    assert start(broken, MATRIX, "--workers", "2").wait(600) == 0, (broken / "log").read_text()
    wholes, ends = ends_of(tmp_path / "whole", "m"), ends_of(broken, "m")
    assert wholes.keys() == ends.keys() and len(ends) == RUNS
    for name, whole in wholes.items():
        assert ends[name].content == whole.content and whole.record.status == "success"
    resumed = [step for end in ends.values() for step in end.record.times.resumed_from]
    assert any(step < 48 for step in resumed), "some went on within the training"
    assert not [*(broken / "results").rglob("*.unfinished"), *(broken / "results").rglob("*.lock")]
    query = "select name, status from runs where lifecycle_stage = 'active'"
    with sqlite3.connect(broken / "mlflow.db") as store:
        logged = store.execute(query).fetchall()
    assert {status for _, status in logged} == {"FINISHED"}, "MLflow's, which were killed too"
    assert len({name for name, _ in logged}) == len(logged), "none twice"
    assert len(logged) == RUNS + CELLS + 1, "the runs, a parent for each cell, and the report"
