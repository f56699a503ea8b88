"""Several runners on one folder, a clock that goes back, a full disk: nothing twice, and nothing lost."""

import json
import os
import subprocess
import threading
import time

import pytest
from factories import make_record
from killing import ends_of, start
from runs import TWO_CELLS, Watch

from benchmark.matrices import matrix, runner
from benchmark.matrices.engines import workers
from benchmark.models import registry
from benchmark.records import record

EIGHT_RUNS = TWO_CELLS.replace("max_length: 16", "max_length: 16, seeds: [0, 1, 2, 3]")
EVENT = json.dumps({"event": "step", "step": 1, "total": 1, "loss": 0.5})


@pytest.fixture
def stand_in(tmp_path, executable, monkeypatch):
    """A shell script in the place of a run: it notes its run in `made/began` and copies its record."""
    monkeypatch.setattr(runner, "LOOK_S", 0.05)
    registry.source("tiny-bert")  # built once, not by several threads
    (tmp_path / "made").mkdir()
    (tmp_path / "made_up.yaml").write_text(EIGHT_RUNS)
    loaded = matrix.load(tmp_path / "made_up.yaml")
    for cell in loaded.cells:
        for spec in cell.runs():
            record.write(make_record(spec), tmp_path / "made" / f"{spec.run_id}.json")
    executable(
        "for last; do spec=$folder; folder=$last; done; id=$(basename $spec .spec.json);"
        f"echo $id >> {tmp_path}/made/began; sleep 0.1; echo '{EVENT}'; cp {tmp_path}/made/$id.json $folder/"
    )
    return loaded


@pytest.mark.parametrize("number", [2, 4])
def test_runners_at_once_make_each_run_once_and_all_see_the_end(
    stand_in, results, tmp_path, number
):
    watches, ended = [Watch() for _ in range(number)], []

    def work(watch):
        ended.append(
            runner.run(
                stand_in,
                tmp_path / "results",
                tracker=watch,
                progress=watch,
                engine=workers.engine(2, warm=False),
            )
        )

    threads = [threading.Thread(target=work, args=(watch,)) for watch in watches]
    for each in threads:
        each.start()
    for each in threads:
        each.join(120)
    began = (tmp_path / "made/began").read_text().split()
    assert len(ended) == number and sorted(began) == sorted({*began}) and len(began) == 8
    assert sum(outcome.ran for outcome in ended) == 8
    assert {one.run_id for one in record.load_all(results)} == {*began}
    assert not list((tmp_path / "results/_scratch/made_up").glob("*.lock"))


def test_a_clock_that_is_set_back_in_a_matrix_changes_no_state(stand_in, go, results, monkeypatch):
    """By an hour at each look at it; records and checkpoints are told apart by their files, not by times."""
    before = time.time()
    looks = iter(range(1_000_000))
    monkeypatch.setattr(time, "time", lambda: before - 3600 * next(looks))
    for path in (results.parent.parent / "made").glob("*.json"):
        os.utime(path, (1, 1))
    outcome, watch = go(EIGHT_RUNS, workers=2, warm=False)
    assert outcome.ended == {"trained": 8} and len(watch.of("finished")) == 8
    again, _ = go(EIGHT_RUNS, workers=2, warm=False)
    assert again.ran == 0


def test_what_fails_under_a_clock_that_is_set_back_has_no_negative_time(
    go, executable, results, monkeypatch
):
    before = time.time()
    looks = iter(range(1_000_000))
    monkeypatch.setattr(time, "time", lambda: before - 3600 * next(looks))
    executable("exit 3")
    assert go(TWO_CELLS, warm=False)[0].failed == 2
    assert all(one.times.total_s >= 0 for one in record.load_all(results))


SMALL = """
name: m
defaults: {model: tiny-bert, data: twin, max_steps: 12, train_examples: 20, eval_examples: 20, max_length: 32,
  batch_size: 4, lr: 1.0e-3, checkpoint_every: 2}
tasks: [glue/sst2]
strategies: {full: {}, hift: {}}
"""


@pytest.fixture
def disk(tmp_path):
    """The folder `results` of `work` is a disk of 2 MiB: less than a checkpoint of `full` takes."""
    folder = tmp_path / "work" / "results"
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_said_before_anything_trains_and_a_small_one_costs_checkpoints_alone(
    disk, tmp_path
):
    work = tmp_path / "work"
    with open(disk / "filler", "wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))
    assert start(work, SMALL).wait() == 2
    *_, line = (work / "log").read_text().splitlines()  # the twin may be built before
    assert line.startswith("hift-bench: results/") and line.endswith("no space left on device")
    assert "Traceback" not in (work / "log").read_text()
    (disk / "filler").unlink()
    assert start(work, SMALL).wait() == 0, (work / "log").read_text()
    assert "no checkpoint after step" in (work / "log").read_text()
    assert start(tmp_path / "whole", SMALL).wait() == 0
    wholes, ends = ends_of(tmp_path / "whole", "m"), ends_of(work, "m")
    assert len(ends) == 2
    assert {name: end.content for name, end in ends.items()} == {
        name: end.content for name, end in wholes.items()
    }
    assert not [*disk.rglob("*.unfinished"), *disk.rglob("*.tmp"), *disk.rglob("*.lock")]
