"""Several runners on one results folder, and several workers of one: each run is made once."""

import json
import os
import resource
import signal
import subprocess
import sys

import pytest
from factories import make_failure, make_spec
from runs import TWO_CELLS, Watch, gone, pretend

from benchmark.files import ROOM
from benchmark.lifetime import stoppable
from benchmark.matrices import claims, matrix, runner
from benchmark.matrices.engines import workers
from benchmark.matrices.pending import Share
from benchmark.matrices.room import Room
from benchmark.records import environment, record
from benchmark.sizes import GIB

FOUR_RUNS = TWO_CELLS.replace("max_length: 16", "max_length: 16, seeds: [0, 1]")
FIRST = "glue-sst2_tiny-bert_full_s0"


@pytest.fixture
def lock(results, monkeypatch):
    """The lock file of the first run; the runner looks often."""
    monkeypatch.setattr(runner, "LOOK_S", 0.01)
    scratch = results.parent / "_scratch" / "made_up"
    scratch.mkdir(parents=True)
    return scratch / f"{FIRST}.lock"


def held_elsewhere(path):
    """A process that holds the claim `path`, as a run's does."""
    claim = claims.take(path)
    holder = subprocess.Popen(["sleep", "60"], pass_fds=[claim.file])
    os.close(claim.file)
    return holder


def test_a_claim_lasts_until_its_last_holder_ends_however_it_ends(tmp_path):
    path = tmp_path / "lock"
    claim = claims.take(path)
    assert claim and claims.take(path) is None
    claim.release()
    assert not path.exists()
    holder = held_elsewhere(path)
    assert claims.take(path) is None
    holder.kill()
    holder.wait()
    claims.take(path).release()


def test_a_lock_file_that_its_last_holder_removed_is_no_claim(tmp_path, monkeypatch):
    """The second process opens the file, the first releases it, and only then the second locks it."""
    path, flock = tmp_path / "lock", claims.fcntl.flock
    first = claims.take(path)

    def late(*arguments):
        monkeypatch.setattr(claims.fcntl, "flock", flock)
        first.release()
        flock(*arguments)

    monkeypatch.setattr(claims.fcntl, "flock", late)
    second = claims.take(path)
    assert path.exists() and claims.take(path) is None
    second.release()


def test_two_runners_at_once_make_each_run_once(go, in_process, results, tmp_path, lock):
    """The second one runs while the first is in its first run."""
    made, pretended = [], pretend()

    def main():
        made.append(sys.argv[1])
        if len(made) == 1:
            loaded, watch = matrix.load(tmp_path / "made_up.yaml"), Watch()
            second = runner.run(loaded, results.parent, tracker=watch, progress=watch, limit=3)
            assert second.ran == 3
        return pretended()

    in_process(main)
    assert go(FOUR_RUNS)[0].ran == 1
    assert len(set(made)) == len(made) == len(list(results.glob("*.json"))) == 4
    assert not list(lock.parent.glob("*.lock"))


def test_a_run_whose_runner_is_killed_is_taken_over(go, in_process, lock, planned):
    holder = held_elsewhere(lock)

    def kill(row):
        holder.kill()
        holder.wait()

    in_process(pretend())
    outcome, watch = go(FOUR_RUNS, Watch(kill))
    assert outcome.ran == 4 and watch.of("finished")[1] == (FIRST, "success")
    assert set(planned().values()) == {"done"}


def test_what_another_runner_could_not_do_is_not_tried_again(
    go, in_process, lock, results, tmp_path
):
    (tmp_path / "made_up.yaml").write_text(FOUR_RUNS)
    spec = matrix.load(tmp_path / "made_up.yaml").cells[0].runs()[0]
    claim = claims.take(lock)

    def fail(row):
        if claim.file is not None and lock.exists():
            record.write(make_failure(spec, "failed", "made up"), results / f"{FIRST}.json")
            claim.release()

    in_process(pretend())
    assert go(FOUR_RUNS, Watch(fail))[0].ran == 3
    assert record.load(results / f"{FIRST}.json").error == "made up"


def test_workers_run_at_once_and_share_the_processors(
    go, executable, results, tmp_path, monkeypatch
):
    """Each run waits for the other one to start, with its threads in the name of a file."""
    monkeypatch.setattr(workers, "processors", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    executable(
        f"cd {tmp_path}; touch $$.$OMP_NUM_THREADS.$MKL_NUM_THREADS.here\n"
        "for i in $(seq 2000); do [ $(ls *.here | wc -l) = 2 ] && exit 3; sleep 0.01; done; exit 1"
    )
    assert go(TWO_CELLS, workers=2, warm=False)[0].ran == 2
    assert [one.error.partition(";")[0] for one in record.load_all(results)] == ["exit 3"] * 2
    assert {path.name.partition(".")[2] for path in tmp_path.glob("*.here")} == {"3.2.here"}


def test_each_worker_has_one_of_the_gpus(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "information").touch()
    monkeypatch.setattr(environment, "NVIDIA", tmp_path)

    def gpus(base):
        found = [workers.variables_of(number, 3, base) for number in range(3)]
        return [each.get("CUDA_VISIBLE_DEVICES") for each in found]

    assert gpus({}) == ["0", "1", "0"]
    assert gpus({"CUDA_VISIBLE_DEVICES": "3, GPU-7f"}) == ["3", "GPU-7f", "3"]
    assert gpus({"CUDA_VISIBLE_DEVICES": ""}) == [""] * 3
    assert workers.variables_of(0, 1, {"A": "b"}) == {"A": "b"}


def test_sigterm_ends_the_runs_of_all_workers(go, executable, results, tmp_path, lock):
    event = json.dumps({"event": "step", "step": 1, "total": 9, "loss": 0.5})
    executable(f"trap '' TERM; echo > {tmp_path}/$$.pid; echo '{event}'; exec sleep 60")

    def stop(row):
        if len(list(tmp_path.glob("*.pid"))) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with stoppable(), pytest.raises(KeyboardInterrupt):
        go(FOUR_RUNS, watch=Watch(stop), workers=2, warm=False)
    assert all(gone(int(path.stem)) for path in tmp_path.glob("*.pid"))
    assert [one.error for one in record.load_all(results)] == ["stopped by SIGTERM"] * 2
    assert not list(lock.parent.glob("*.lock"))


def test_a_run_beyond_its_time_is_ended_and_recorded_as_that(go, executable, results, planned):
    executable("exec sleep 60")
    outcome, _ = go(TWO_CELLS, workers=2, warm=False, limit_s=0.2)
    assert outcome.failed == 2 and set(planned().values()) == {"timeout"}
    assert {one.error for one in record.load_all(results)} == {
        "stopped after its time limit of 0.2 s"
    }


def test_a_run_that_prints_bytes_that_are_no_text_does_not_stop_the_runner(go, executable, results):
    executable(r"printf '\377\n'; exit 3")
    assert go(TWO_CELLS, warm=False)[0].ran == 2
    assert [one.status for one in record.load_all(results)] == ["failed"] * 2


def test_the_parts_of_a_matrix_are_disjoint_and_all_of_it(go, in_process, results, tmp_path):
    """A cell that searches is in one part. The parts are run by runners that share no results."""
    text = FOUR_RUNS.replace("full: {lr: 1.0e-3", "full: {search: {lr: [1e-3, 2e-3], examples: 8}")
    (tmp_path / "made_up.yaml").write_text(text)
    loaded, parts = matrix.load(tmp_path / "made_up.yaml"), []
    for number in (1, 2):
        watch = Watch()
        in_process(pretend())
        runner.run(
            loaded,
            tmp_path / str(number),
            tracker=watch,
            progress=watch,
            share=Share(number, 2),
        )
        parts.append({path.stem for path in (tmp_path / str(number)).glob("made_up/*.json")})
    assert parts[0] == {*loaded.cells[0].run_ids, loaded.cells[1].run_ids[1]}
    assert parts[1] == {loaded.cells[1].run_ids[0]}


def test_a_disk_without_room_is_said_before_anything_runs(go, in_process, results):
    in_process(lambda: pytest.fail("it trains"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM // 2, before[1]))
    try:
        with pytest.raises(OSError) as error:
            go(TWO_CELLS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.filename.startswith(str(results.parent)) and not results.exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--shard", "3/2"), "--shard 3/2: not a part of a matrix"),
        (("--time-limit", "2 hours"), "--time-limit 2 hours: not a time, such as 90s"),
    ],
)
def test_a_part_or_a_time_that_is_none_is_one_line(refused, write, option, said):
    write(TWO_CELLS)
    assert refused("run", "m.yaml", *option).startswith(said)


def test_a_run_waits_until_it_fits_and_one_that_never_does_is_not_started(
    go, executable, results, tmp_path
):
    """Of 10 GiB, `full` and `hift` take 6 each, libraries included, so that one waits; `lora` takes 12."""
    text = TWO_CELLS.replace(
        "head: {lr: 1.0e-3, max_steps: 2}", "hift: {lr: 1.0e-3}, lora: {lr: 1.0e-3}"
    )
    predicted = {"full": (5 * GIB, 0), "hift": (2 * GIB, 3 * GIB), "lora": (11 * GIB, 0)}
    room = Room(lambda spec, device: predicted[spec.strategy], host=10 * GIB, gpus={})
    executable(
        f"cd {tmp_path}; mkdir alone || exit 1; sleep 0.2; rmdir alone; exit 3"  # fails if it is not alone
    )
    assert go(text, workers=3, room=room, warm=False)[0].ran == 3
    kept = {one.spec["strategy"]: one for one in record.load_all(results)}
    assert [kept[name].error.partition(";")[0] for name in ("full", "hift")] == ["exit 3"] * 2
    assert kept["lora"].status == "oom" and kept["lora"].error == (
        "not started: predicted to need 12.00 GiB of host memory, of which there is 10.00 GiB"
    )


def test_memory_is_counted_on_each_gpu():
    spec = make_spec()
    room = Room(
        lambda spec, device: (6 * GIB, GIB), host=5 * GIB, gpus={"0": 10 * GIB, "1": 5 * GIB}
    )
    assert room.fits(spec, "0", [(spec, "1")]) and not room.fits(spec, "0", [(spec, "0")])
    assert room.fault(spec, "0") is None
    assert room.fault(spec, "1").reason.startswith("not started: predicted to need 6.00 GiB of GPU")
    assert not room.fits(spec, "0", [(spec, "2")] * 2), "three times 2 GiB on the host"
