"""Whatever broke off what was logged: the next fill leaves each record once, whole, and nothing RUNNING."""

import dataclasses
import os
import shutil
import subprocess
import sys

import psutil
import pytest
from factories import curve_rows, make_record, make_spec, write_run
from mlflow import MlflowClient
from store import STEPS, content, everything, fill, history, runs, three, track

from benchmark.tracking import owners
from benchmark.tracking.client import Calls
from benchmark.tracking.mlflow_store import Store


class Killed(BaseException):
    """Stands for SIGKILL: no `except Exception` sees it."""


def log_until(uri, folder, calls):
    """Log a run live, by a Store as the tracker does, and be killed before the call with this number."""
    spec = make_spec()
    record = write_run(folder, make_record(spec), STEPS)
    store = Store(uri, "made_up")
    original, made = Calls.__getattr__, []

    def counted(self, name):
        made.append(name)
        if len(made) > calls:
            raise Killed
        return original(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Calls, "__getattr__", counted)
        try:
            child = store.create(spec.model_dump(mode="json"), spec.run_id, spec.hash, 1_000)
            store.client.update_run(child.parent, status="RUNNING")
            store.log_rows(child, curve_rows(record, STEPS)[:4])
            store.complete(child, record, folder)
            store.refresh(child.parent)
        except Killed:
            return record, False
    return record, True


@pytest.mark.slow
@pytest.mark.parametrize("calls", [6, 15, None])
def test_a_process_killed_before_any_call_leaves_what_a_fill_completes(
    uri, tmp_path, empty_store, calls
):
    """At 6 there is a parent without its parameters, at 15 the tag of the record without the run's end."""
    track(uri, tmp_path / "r", [make_spec()])
    undisturbed = content(uri)
    for number in range(1, 40) if calls is None else [calls]:
        other = tmp_path / str(number)
        other.mkdir()
        shutil.copy(empty_store, other / "mlflow.db")
        broken = f"sqlite:///{other}/mlflow.db"
        record, whole = log_until(broken, other / "r", number)
        if calls is not None:
            assert content(broken) != undisturbed and not whole
        assert fill(broken, other / "r", [record]) and content(broken) == undisturbed, number
        if whole:
            break
    assert calls is not None or (whole and number > 10)


@pytest.mark.slow
def test_what_two_processes_made_twice_is_made_one(uri, tmp_path):
    folder = tmp_path / "r"
    records = track(uri, folder, three())
    before = content(uri)
    client = MlflowClient(tracking_uri=uri)
    (parent,), (child, *_) = runs(uri, "cell"), runs(uri, "run")
    for run in (parent, child):
        kept = {k: v for k, v in run.data.tags.items() if k.startswith("hift.")}
        twin = client.create_run(run.info.experiment_id, run.info.start_time + 1, kept, "twin")
        client.set_tag(child.info.run_id, "mlflow.parentRunId", twin.info.run_id)
    assert len(runs(uri, "cell")) == 2 and len(runs(uri, "run")) == 4
    assert fill(uri, folder, records) and content(uri) == before
    (parent,) = runs(uri, "cell")
    parents = {run.data.tags["mlflow.parentRunId"] for run in runs(uri, "run")}
    assert parents == {parent.info.run_id}


def test_a_parent_that_was_deleted_comes_back(uri, tmp_path):
    records = track(uri, tmp_path / "r", three())
    before = content(uri)
    (parent,) = runs(uri, "cell")
    MlflowClient(tracking_uri=uri).delete_run(parent.info.run_id)
    assert fill(uri, tmp_path / "r", records) and content(uri) == before


def test_a_run_stays_running_only_while_a_process_can_end_it(uri, tmp_path):
    """A run without a record: its process was killed, lives, or is on another machine."""
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    started = psutil.Process(gone.pid).create_time()
    host, pid, began = owners.this_process().split()
    gone.wait()
    ours = f"{host} {os.getppid()} {psutil.Process(os.getppid()).create_time():.0f}"
    wanted = {
        f"{host} {gone.pid} {started:.0f}": "KILLED",
        f"{host} {pid} {float(began) - 1000:.0f}": "KILLED",  # the number is another process's now
        owners.this_process(): "KILLED",  # that logged it, and no longer knows it
        ours: "RUNNING",
        "elsewhere 1 1700000000": "RUNNING",
    }
    store = Store(uri, "made_up")
    for seed, owner in enumerate(wanted):
        spec = make_spec(seed=seed)
        child = store.create(spec.model_dump(mode="json"), spec.run_id, spec.hash, 1_000)
        store.client.set_tag(child.id, "hift.owner", owner)
    replaced = make_record(make_spec(seed=3))  # the record of an attempt before that of `ours`
    assert fill(uri, tmp_path, [replaced])
    assert {r.data.tags["hift.owner"]: r.info.status for r in runs(uri, "run")} == wanted
    (parent,) = runs(uri, "cell")
    assert parent.info.status == "KILLED"
    assert owners.has_ended(None) and not owners.has_ended(owners.this_process())


def test_only_the_settings_of_the_records_count(uri, tmp_path):
    """A run logged under other settings is superseded, and counts again once its record is back."""
    first, second = make_record(make_spec(lr=1e-4)), make_record(make_spec(lr=2e-4), score=0.6)
    for record in (first, second, first):
        assert fill(uri, tmp_path, [record])
        (parent,) = runs(uri, "cell")
        assert parent.data.metrics["seeds"] == 1
        assert parent.data.metrics["score/accuracy_mean"] == record.scores.main
    assert len(runs(uri, "run")) == 2
    before = everything(uri)
    assert fill(uri, tmp_path, [first]) and everything(uri) == before


def test_more_runs_than_a_page_holds_are_all_seen(uri, tmp_path, monkeypatch):
    records = [make_record(spec) for spec in three()]
    assert fill(uri, tmp_path, records)
    before = everything(uri)
    monkeypatch.setattr("benchmark.tracking.mlflow_store._RUNS_PER_CALL", 2)
    assert fill(uri, tmp_path, records) and everything(uri) == before


def test_a_resumed_run_has_the_steps_before_it_was_broken_off(uri, tmp_path):
    """Live, only the steps after its checkpoint are told."""
    from benchmark.tracking.tracker import Tracker

    record = write_run(tmp_path, make_record(), STEPS)
    with Tracker(uri, "made_up") as tracker:
        tracker.start(make_spec())
        tracker.steps(make_spec(), curve_rows(record, STEPS)[5:])
        tracker.finish(record, tmp_path)
    (run,) = runs(uri, "run")
    assert [step for step, *_ in history(uri, run, "curve/loss")] == list(range(STEPS))


def test_a_record_that_changed_is_logged_again(uri, tmp_path):
    """As `rescore` changes it."""
    record = make_record()
    changed = dataclasses.replace(record, scores=make_record(score=0.123).scores)
    assert fill(uri, tmp_path, [record]) and fill(uri, tmp_path, [changed])
    (run,) = runs(uri, "run")
    (parent,) = runs(uri, "cell")
    assert run.data.metrics["score/accuracy"] == 0.123
    assert parent.data.metrics["score/accuracy_mean"] == 0.123, "lower, and finished as late"
