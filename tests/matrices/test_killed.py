"""A matrix that is killed again and again, by real signals, ends with the bytes of one that is not."""

import csv
import random
import signal
import sqlite3
import subprocess
import time

import psutil
import pytest
from documents import surroundings
from runs import gone

from benchmark.records import record

MATRIX = """\
name: m
defaults: {model: tiny-bert, data: twin, max_steps: 24, train_examples: 20, eval_examples: 20, max_length: 32,
  batch_size: 4, lr: 1.0e-3, checkpoint_every: 2}
tasks: [glue/sst2]
strategies: {hift: {}, full: {}, lora: {}, galore: {rank: 2}, lomo: {lr: 1.0e-2}}
"""


def start(folder, *options):
    folder.mkdir(exist_ok=True)
    (folder / "m.yaml").write_text(MATRIX)
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            ["hift-bench", "run", "m.yaml", *options],
            **{"cwd": folder, "env": surroundings(), "stdout": log, "stderr": log},
        )


def checkpoint(folder):
    """When the newest checkpoint of a training was written; 0 if there is none."""
    found = (folder / "results" / "_scratch" / "m").glob("*.unfinished/checkpoint.pt")
    return max((path.stat().st_mtime_ns for path in found), default=0)


def results(folder):
    """run id -> its record, predictions and curve without timings."""
    found = {}
    for one in record.load_all(folder / "results" / "m"):
        path = folder / "results" / "m"
        with open(path / one.curve, newline="") as file:
            rows = [{**row, "seconds": "", "step_ms": ""} for row in csv.DictReader(file)]
        found[one.run_id] = (one, (path / one.predictions).read_bytes(), rows)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--no-warm"]], ids=["fork", "interpreter"])
def test_runs_that_are_killed_in_training_end_with_the_same_bytes_and_leave_no_process(
    tmp_path, options
):
    """Each kill comes within a tenth of a second after a new checkpoint: of the runner, or of the run."""
    assert start(tmp_path / "whole").wait() == 0
    broken, dice, resumed = tmp_path / "broken", random.Random(4), []
    for number in (signal.SIGKILL, signal.SIGTERM) * 2:
        runner, before = start(broken, *options), checkpoint(broken)
        while checkpoint(broken) <= before:
            assert runner.poll() is None, (broken / "log").read_text()
            time.sleep(0.005)
        time.sleep(dice.random() / 10)
        family = psutil.Process(runner.pid).children(recursive=True)
        runner.send_signal(number)
        assert runner.wait(600) == (130 if number == signal.SIGTERM else -number)
        assert family and all(gone(process.pid) for process in family)
        if number == signal.SIGTERM:
            kept = record.load_all(broken / "results" / "m")
            assert [one.error for one in kept if one.status != "success"] == ["stopped by SIGTERM"]
    assert start(broken, *options).wait() == 0
    wholes, ends = results(tmp_path / "whole"), results(broken)
    assert wholes.keys() == ends.keys() and len(ends) == 5
    for name, (whole, predicted, curve) in wholes.items():
        end, *files = ends[name]
        assert [predicted, curve] == files and end.status == "success"
        assert (end.scores, end.params, end.train.final_loss) == (
            *(whole.scores, whole.params, whole.train.final_loss),
        )
        resumed += end.times.resumed_from
    assert any(step < 24 for step in resumed), "some went on within the training"
    assert not list((broken / "results").rglob("*.unfinished"))
    query = "select name, status from runs where lifecycle_stage = 'active'"
    with sqlite3.connect(broken / "mlflow.db") as store:
        logged = store.execute(query).fetchall()
    assert {status for _, status in logged} == {"FINISHED"}, "MLflow's, which were killed too"
    assert len({name for name, _ in logged}) == len(logged) == 2 * len(ends), "a parent for each"
