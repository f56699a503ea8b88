"""Runs as tasks of Ray itself, on a cluster of this machine: a worker that is killed, and the way out."""

import os
import signal
import socket
import subprocess
import time
from importlib.util import find_spec

import psutil
import pytest
from documents import surroundings
from killing import checkpoint, ends_of, start
from runs import TWO_CELLS, gone

from benchmark.matrices import listing
from benchmark.records import record

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="not installed: ray"),
]
HERE = ("--engine", "ray", "--workers", "2", "--ray", "include_dashboard=false")
UNFINISHED = "results/_scratch/twin_smoke/*.unfinished"
SMOKE = (listing.MATRICES / "twin_smoke.yaml").read_text(encoding="utf-8")


def wait_for(what, seconds=600):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def descendants(runner):
    try:
        return psutil.Process(runner.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def command_of(process):
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


@pytest.fixture
def begin(tmp_path):
    """Start the runner of SMOKE in a folder of this test; one that is left is ended."""
    runners = []

    def begin(*options, folder=tmp_path):
        runners.append(start(folder, SMOKE, *options))
        return runners[-1]

    yield begin
    for runner in runners:
        runner.terminate()
        runner.wait()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the matrix ends with on one worker of this machine that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    assert start(folder, SMOKE).wait() == 0, (folder / "log").read_text()
    return ends_of(folder, "twin_smoke")


def test_a_run_whose_ray_worker_is_killed_goes_on_and_ends_with_the_same_bytes(
    begin, tmp_path, whole
):
    """The worker is the process that Ray started for the task, and that started the run's."""
    runner = begin(*HERE)
    (saved,) = wait_for(lambda: list(tmp_path.glob(f"{UNFINISHED}/checkpoint.pt"))[:1])
    run_id = saved.parent.name.partition(".")[0]
    (run,) = (p for p in descendants(runner) if f"/{run_id}.spec.json" in command_of(p))
    worker = run.parent()
    assert "ray::" in command_of(worker)
    worker.send_signal(signal.SIGKILL)
    assert gone(run.pid), "a run ends with the worker"
    left = descendants(runner)
    assert runner.wait(1800) == 0, (tmp_path / "log").read_text()
    ends = ends_of(tmp_path, "twin_smoke")
    assert {name: end.content for name, end in ends.items()} == {
        name: end.content for name, end in whole.items()
    }
    assert ends[run_id].record.times.resumed_from
    assert all(gone(process.pid) for process in left), "Ray's own too"
    assert not [
        *(tmp_path / "results").rglob("*.unfinished"),
        *(tmp_path / "results").rglob("*.lock"),
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_runs_end_with_their_runner_and_go_on_with_the_next(begin, tmp_path, whole, number):
    """Where it is killed, two processes of Ray that look after their node once a minute end later."""
    runner = begin(*HERE)
    wait_for(lambda: checkpoint(tmp_path) or runner.poll() is not None)
    family = [
        p for p in descendants(runner) if number == signal.SIGTERM or "tiny-bert" in command_of(p)
    ]
    assert len(family) >= 4, "two runs, and a process of Ray for each"
    runner.send_signal(number)
    assert runner.wait(300) == (130 if number == signal.SIGTERM else -number)
    assert all(gone(process.pid) for process in family)
    kept = [one.status for one in record.load_all(tmp_path / "results/twin_smoke")]
    assert kept.count("interrupted") == (2 if number == signal.SIGTERM else 0)
    assert begin(*HERE).wait(1800) == 0, (tmp_path / "log").read_text()
    ends = ends_of(tmp_path, "twin_smoke")
    assert {name: end.content for name, end in ends.items()} == {
        name: end.content for name, end in whole.items()
    }


def refused(folder, *options, **variables):
    """The one line with which `run` refuses them."""
    (folder / "m.yaml").write_text(TWO_CELLS)
    done = subprocess.run(
        ["hift-bench", "run", "m.yaml", "--engine", "ray", *options],
        cwd=folder,
        env=surroundings() | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert os.listdir(folder) == ["m.yaml"]
    return done.stderr.removeprefix("hift-bench: ").strip()


def test_a_cluster_that_is_not_there_or_never_answers_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address in ("127.0.0.1:1", f"127.0.0.1:{silent.getsockname()[1]}"):
            said = (
                f"--engine ray: no Ray cluster of this version answers at {address}; without RAY_"
            )
            assert refused(tmp_path, "--ray", f"address={address}").startswith(said)
    assert refused(tmp_path, RAY_ADDRESS="ray://head:10001").startswith(
        "--engine ray: ray://head:10001 is that of Ray's client; run it on a node"
    )


def test_a_setting_that_no_task_has_is_one_line(tmp_path):
    assert refused(tmp_path, "--ray", "gpus=1").startswith("--ray: Invalid option keyword gpus")
    assert refused(tmp_path, "--ray", "num_gpus=many").startswith("--ray: ")


def test_a_cluster_that_is_there_has_tasks_with_the_names_of_the_runs(begin, tmp_path, whole):
    """It is one of this machine that another program started, and stays."""
    import ray
    from ray.util.state import list_tasks

    (tmp_path / "runs").mkdir()
    context = ray.init(address="local", num_cpus=2, include_dashboard=True, log_to_driver=False)
    try:
        address = context.address_info["gcs_address"]
        options = ("--engine", "ray", "--ray", f"address={address}")
        assert begin(*options, folder=tmp_path / "runs").wait(1800) == 0
        names = {task.name for task in list_tasks() if task.state == "FINISHED"}
    finally:
        ray.shutdown()
    assert names >= whole.keys() == ends_of(tmp_path / "runs", "twin_smoke").keys()
