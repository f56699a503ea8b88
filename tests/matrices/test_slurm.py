"""Runs as jobs: submitit's local executor, and a SLURM whose commands are shell scripts."""

import dataclasses
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import submitit
from documents import blocks
from factories import make_record, make_spec
from killing import checkpoint, ends_of, start
from runs import TWO_CELLS, Watch, gone

from benchmark.commands.options import key_values
from benchmark.matrices import claims, listing, matrix, runner
from benchmark.matrices.engines import job, slurm
from benchmark.records import record

EVENT = json.dumps({"event": "step", "step": 1, "total": 1, "loss": 0.5})


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A shell script in the place of a run; $1 is its run id, and `made/$1.json` the record it may copy to
    $2. Returns the run ids of TWO_CELLS, whose matrix `go` reads."""
    (tmp_path / "made").mkdir()
    (tmp_path / "made_up.yaml").write_text(TWO_CELLS)
    specs = [cell.runs()[0] for cell in matrix.load(tmp_path / "made_up.yaml").cells]
    for spec in specs:
        record.write(make_record(spec), tmp_path / "made" / f"{spec.run_id}.json")
    monkeypatch.setattr(job, "LOOK_S", 0.02)
    monkeypatch.setattr(runner, "LOOK_S", 0.02)

    def use(script):
        def command(arguments):
            run_id = Path(arguments[0]).name.removesuffix(".spec.json")
            copy = f"cp made/{run_id}.json {Path(arguments[1]).resolve()}/{run_id}.json"
            body = script.replace("COPY", copy)
            return ["sh", "-c", f"cd {tmp_path}; echo {run_id} >> made/began; {body}"]

        monkeypatch.setattr(job, "command", command)
        return [spec.run_id for spec in specs]

    return use


LOCAL = {"cluster": "local"}


def test_runs_are_jobs_whose_events_records_and_ends_come_back(go, stand_in, results, tmp_path):
    full, head = stand_in(
        f"echo '{EVENT}'; echo boom >&2; grep -q full made/began && [ ! -e two ] || exit 3; touch two; COPY"
    )
    outcome, watch = go(TWO_CELLS, engine=slurm.engine(1, LOCAL))
    assert outcome.ends == {full: "trained", head: "failed"}
    assert watch.of("stepped") == [(1,), (1,)]
    assert record.load(results / f"{head}.json").error.startswith("boom; log: ")
    scratch = results.parent / "_scratch" / "made_up"
    assert (
        not list(scratch.glob("*.lock")) and (tmp_path / "made/began").read_text().count("s0") == 2
    )


def test_jobs_go_on_without_their_runner_and_the_next_one_waits_for_them(
    go, stand_in, results, tmp_path
):
    ids = stand_in(f"echo '{EVENT}'; while [ ! -e go ]; do sleep 0.05; done; COPY")

    def stop(row):
        if len((tmp_path / "made/began").read_text().split()) == 2:
            raise KeyboardInterrupt

    watch = Watch(stop)
    with pytest.raises(KeyboardInterrupt):
        go(TWO_CELLS, watch, engine=slurm.engine(2, LOCAL))
    assert watch.of("noted")[-1] == ("2 jobs go on; the same command waits for their runs",)
    assert not list(results.glob("*.json")), "neither interrupted nor done"
    (tmp_path / "go").touch()
    outcome, _ = go(TWO_CELLS, engine=slurm.engine(2, LOCAL))
    assert outcome.ran == 0 and {one.run_id for one in record.load_all(results)} == {*ids}
    assert sorted((tmp_path / "made/began").read_text().split()) == sorted(ids), "once each"


@pytest.mark.slow
def test_a_job_that_is_cancelled_ends_with_its_process(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(submitit.LocalJob, "_results_timeout_s", 0)
    stand_in("echo $$; exec sleep 60")
    spec, claim = make_spec(), claims.take(tmp_path / "lock")
    with (
        slurm.engine(1, LOCAL)(tmp_path, print) as (place,),
        open(tmp_path / "log", "a") as log,
    ):
        process = place.start(spec, [f"{spec.run_id}.spec.json", str(tmp_path)], log, claim)
        claim.release()
        lines = iter(process.stdout)
        assert json.loads(next(lines)) == {"event": job.BEGAN}
        pid = int(next(lines))
        process.kill()
        assert process.wait() == 1 and gone(pid)
    assert "the job ended without a result: " in (tmp_path / "log").read_text()


@pytest.fixture
def work(tmp_path):
    done = make_record()
    record.write(done, tmp_path / "record.json")
    return job.Work(
        spec_hash=done.spec_hash,
        command=["touch", str(tmp_path / "ran")],
        record=tmp_path / "record.json",
        variables={},
        lock=tmp_path / "lock",
        events=tmp_path / "events",
        log=tmp_path / "log",
    )


def test_a_job_makes_no_run_that_is_done_or_that_another_process_makes(work, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "CLAIM_S", 0.1)
    assert work() == 0 and not (tmp_path / "ran").exists(), "its record is there"
    other = dataclasses.replace(work, spec_hash="another")
    held = claims.take(work.lock)
    assert other() == job.HELD and not (tmp_path / "ran").exists()
    held.release()
    assert other() == 0 and (tmp_path / "ran").exists() and not work.lock.exists()


SBATCH = "cp $1 {0}/submitted; echo x >> {0}/jobs; echo Submitted batch job 7"
SACCT = "echo 'JobID|State|NodeList'; echo \"7|$(cat {0}/state)|node\""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """sbatch, sacct and srun of a SLURM with one job, whose state is in a file."""
    for name, script in {"sbatch": SBATCH, "sacct": SACCT, "srun": "", "scancel": ""}.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script.format(tmp_path)}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (tmp_path / "state").write_text("PENDING")
    monkeypatch.setattr(submitit.SlurmJob, "_results_timeout_s", 0)
    return tmp_path


@pytest.mark.slow
def test_a_job_in_the_queue_is_followed_by_the_next_runner(go, stand_in, cluster, results):
    """The first runner is stopped before SLURM has started the job, which then ends by itself. The settings
    are those of docs/team.md."""
    stand_in("")
    one = TWO_CELLS.replace(", head: {lr: 1.0e-3, max_steps: 2}", "")
    documented, _ = blocks("docs/team.md", "console")
    settings = key_values("--slurm", "", re.findall(r"--slurm (\S+)", documented))

    def stop():
        while not list(results.parent.rglob("*.job")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop).start()
    with pytest.raises(KeyboardInterrupt):
        go(one, engine=slurm.engine(4, settings))
    asked = (cluster / "submitted").read_text()
    for line in ("partition=gpu", "gpus-per-node=1", "mem=40GB", f"time={24 * 60}"):
        assert f"#SBATCH --{line}\n" in asked

    def end(row):
        (cluster / "state").write_text("COMPLETED")

    (cluster / "state").write_text("RUNNING")
    run_id = "glue-sst2_tiny-bert_full_s0"
    (results.parent / "_scratch/made_up" / f"{run_id}.events").write_text(f"{EVENT}\n")
    _, watch = go(one, Watch(end), engine=slurm.engine(4, settings))
    assert watch.of("stepped") == [(1,)] and (cluster / "jobs").read_text() == "x\n", "once"
    kept = record.load(results / f"{run_id}.json")
    assert kept.status == "failed" and "has not produced any output" in kept.error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--engine", "slurm"],
            "--engine slurm: this machine has no sbatch; run it on a login node",
        ),
        (["--slurm", "mem_gb=4"], "--slurm: these settings are for --engine slurm"),
        (
            ["--engine", "slurm", "--slurm", "mem"],
            "--slurm mem: not NAME=VALUE, such as slurm_part",
        ),
        (
            ["--engine", "slurm", *("--slurm", "cluster=local") * 2],
            "--slurm cluster=local: cluster is",
        ),
        (
            ["--engine", "slurm", "--slurm", "cluster=local", "--slurm", "nodez=2"],
            "--slurm: Parameter 'nodez' need to be prefixed by an executor name",
        ),
        (
            ["--engine", "slurm", "--slurm", "cluster=local", "--slurm", "mem_gb=much"],
            '--slurm: Parameter "mem_gb" expected type',
        ),
    ],
)
def test_what_no_job_can_have_is_one_line(refused, write, monkeypatch, options, said):
    monkeypatch.setenv("PATH", "/nowhere")
    write(TWO_CELLS)
    assert refused("run", "m.yaml", *options).startswith(said)


SMOKE = (listing.MATRICES / "twin_smoke.yaml").read_text(encoding="utf-8")


@pytest.mark.slow
def test_jobs_outlive_a_runner_that_is_killed_and_no_run_is_made_twice(tmp_path):
    """By submitit's local executor, with real runs. The next runner finds two runs in the hands of jobs."""
    options = ("--engine", "slurm", "--slurm", "cluster=local", "--workers", "2")
    first = start(tmp_path, SMOKE, *options)
    while not checkpoint(tmp_path):
        assert first.poll() is None
        time.sleep(0.01)
    jobs = [
        p
        for p in psutil.Process(first.pid).children(recursive=True)
        if "recipe" in str(p.cmdline())
    ]
    first.kill()
    assert first.wait() == -signal.SIGKILL and len(jobs) == 2
    assert start(tmp_path, SMOKE, *options).wait(1800) == 0, (tmp_path / "log").read_text()
    assert all(gone(process.pid) for process in jobs)
    ends = ends_of(tmp_path, "twin_smoke")
    assert len(ends) == 4 and {end.record.status for end in ends.values()} == {"success"}
    assert not [step for end in ends.values() for step in end.record.times.resumed_from]
    assert not [
        *(tmp_path / "results").rglob("*.unfinished"),
        *(tmp_path / "results").rglob("*.lock"),
    ]
