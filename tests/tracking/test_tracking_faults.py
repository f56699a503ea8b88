"""Stores that are broken, hang, die, come back, or also have the user's own runs: a matrix loses nothing."""

import dataclasses
import logging
import multiprocessing
import threading
from pathlib import Path

import mlflow
import pytest
from factories import curve_rows, make_record, make_spec, write_run
from mlflow import MlflowClient
from runs import TWO_CELLS, pretend
from servers import closed_port, deny, die, drip, hang, serving
from store import STEPS, content, fill, history, runs, three, track

from benchmark.tracking import tracker as tracking
from benchmark.tracking.client import connect
from benchmark.tracking.tracker import Tracker


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def track_one(tracker, folder):
    """What a matrix of one run tells the tracker."""
    spec = make_spec()
    record = write_run(folder, make_record(spec), STEPS)
    tracker.start(spec)
    for row in curve_rows(record, STEPS):
        tracker.steps(spec, [row])
    tracker.finish(record, folder)
    tracker.fill([(record, folder)])
    tracker.report(folder)


@pytest.mark.parametrize("behave", [hang, drip, die, deny])
def test_a_server_that_does_not_answer_is_not_waited_for(behave, tmp_path, capsys, monkeypatch):
    """It still holds the connection when the context has ended; the one line says what to do."""
    monkeypatch.setattr(tracking, "_SECONDS", {"answered": 0.05, "failed": 0.05})
    with serving(behave) as (uri, released):
        with Tracker(uri, "made_up") as tracker:
            track_one(tracker, tmp_path)
        assert not released.is_set() and not tracker.filled
    (line,) = lines(capsys)
    assert "MLflow failed: " in line and "logged at the end, or by `hift-bench sync`" in line


def test_a_database_that_hangs_is_not_waited_for(tmp_path, capsys, monkeypatch):
    """MLflow opens it when its client is made, before any call."""
    let_go = threading.Event()
    monkeypatch.setattr(mlflow, "MlflowClient", lambda **_: let_go.wait() and 1 / 0)
    monkeypatch.setattr(tracking, "_SECONDS", {"answered": 0.05, "failed": 0.05})
    with Tracker("mysql://127.0.0.1/m", "made_up") as tracker:
        track_one(tracker, tmp_path)
    assert not let_go.is_set() and not tracker.filled and len(lines(capsys)) == 1
    let_go.set()


@pytest.mark.slow
def test_a_matrix_ends_while_its_server_hangs_and_sync_logs_it_elsewhere(
    cli, in_process, write, undrawn, uri, monkeypatch
):
    in_process(pretend())
    write(TWO_CELLS)
    monkeypatch.setattr(tracking, "_SECONDS", {"answered": 0.05, "failed": 0.05, "local": 60})
    with serving(hang) as (hanging, released):
        code, _, err = cli("run", "m.yaml", "--tracking-uri", hanging)
        assert code == 0 and not released.is_set() and err.count("MLflow failed") == 1
    code, out, err = cli("sync", "m.yaml", "--tracking-uri", uri)
    assert code == 0 and "MLflow" not in err and out == f"2 of 2 records logged to {uri}\n"
    code, out, _ = cli("sync", "m.yaml", "--tracking-uri", uri)
    assert (code, out) == (0, f"0 of 2 records logged to {uri}, the other 2 were there\n")
    client = MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name("m").experiment_id])
    assert len(found) == 4 and {run.info.status for run in found} == {"FINISHED"}


@pytest.mark.parametrize(
    "uri", ["sqlite:////proc/nowhere/m.db", "http://{closed}", "sqlite:///{file}"]
)
def test_a_broken_store_is_said_once_in_one_line(uri, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "text").write_text("no database\n" * 1000)
    names = {"closed": f"127.0.0.1:{closed_port()}", "file": tmp_path / "text"}
    with Tracker(uri.format(**names), "made_up") as tracker:
        track_one(tracker, tmp_path)
    assert not tracker.filled and len(lines(capsys)) == 1


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("create_run", "set_terminated")]


@pytest.mark.parametrize("method", ["log_batch", *SLOW])
def test_a_store_that_fails_and_comes_back_has_every_run_at_the_end(
    uri, tmp_path, capsys, monkeypatch, method
):
    """It is tried again after a pause, and in any case by the fill at the end."""
    original, broken = getattr(MlflowClient, method), threading.Event()

    def fail(*arguments, **named):
        if broken.is_set():
            raise ConnectionError("gone")
        return original(*arguments, **named)

    folder, records = tmp_path / "r", []
    monkeypatch.setattr(MlflowClient, method, fail)
    with Tracker(uri, "made_up") as tracker:
        for number, spec in enumerate(three()):
            if number == 1:
                assert tracker._background.finish(stuck=lambda: False)
                broken.set()
            tracker.start(spec)
            records.append(write_run(folder, make_record(spec), STEPS))
            tracker.steps(spec, curve_rows(records[-1], STEPS))
            tracker.finish(records[-1], folder)
        assert tracker._background.finish(stuck=lambda: False)
        broken.clear()
        tracker.fill((record, folder) for record in records)
    assert tracker.filled
    failed, healed = lines(capsys)
    assert "ConnectionError: gone" in failed and healed.endswith("MLflow has every record now")
    logged = content(uri)
    assert [entry[1] for entry in logged] == ["FINISHED"] * 4 and logged[0][4]["seeds"] == [
        (3, 3.0)
    ]
    for run in runs(uri, "run"):
        assert len(history(uri, run, "curve/loss")) == STEPS


def test_a_run_that_starts_while_the_store_pauses_is_logged_by_its_end(uri, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "_PAUSE_S", 0.0)
    folder, record = tmp_path / "r", make_record()
    with Tracker(uri, "made_up") as tracker, monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", lambda *_, **__: 1 / 0)
        tracker.start(make_spec())
        assert tracker._background.finish(stuck=lambda: False)
        patch.undo()
        tracker.steps(make_spec(), curve_rows(record, STEPS))
        tracker.finish(write_run(folder, record, STEPS), folder)
    (run,) = runs(uri, "run")
    assert run.info.status == "FINISHED" and len(history(uri, run, "curve/loss")) == STEPS


def test_a_full_queue_loses_rows_until_the_end_only(uri, tmp_path):
    """Whatever finds no room is logged from the records."""
    folder, let_go = tmp_path / "r", threading.Event()
    with Tracker(uri, "made_up") as tracker:
        tracker._background.put(let_go.wait)
        spec = make_spec()
        record = write_run(folder, make_record(spec), STEPS)
        tracker.start(spec)
        while tracker._background.put(lambda: None):
            pass
        tracker.steps(spec, curve_rows(record, STEPS))
        tracker.finish(record, folder)
        let_go.set()
        while not tracker._background.finish(stuck=lambda: False):
            pass
        tracker.fill([(record, folder)])
    (run,) = runs(uri, "run")
    assert run.info.status == "FINISHED" and len(history(uri, run, "curve/loss")) == STEPS


def create(folder, start):
    """Connect to a new store in this process, and log a run."""
    start.wait()
    client = connect(f"sqlite:///{folder}/mlflow.db")
    client.create_run(client.create_experiment(multiprocessing.current_process().name))


@pytest.mark.slow
def test_processes_that_create_a_store_at_once_both_work(tmp_path):
    """MLflow's own creation fails then. A store that a killed process left half made is in nobody's way."""
    (tmp_path / "mlflow.db.new").write_bytes(b"half of a store")
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    processes = [context.Process(target=create, args=(tmp_path, start)) for _ in range(2)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert len(client.search_experiments()) == 3 and not (tmp_path / "mlflow.db.new").exists()


def test_a_record_without_its_curve_file_is_still_logged(uri, tmp_path, capsys):
    record = dataclasses.replace(make_record(), curve="curves/gone.csv")
    assert fill(uri, tmp_path, [record])
    (run,) = runs(uri, "run")
    assert run.info.status == "FINISHED" and run.data.metrics["score/accuracy"] == 0.8
    assert "curves/gone.csv: curve not tracked" in capsys.readouterr().err


def test_a_users_active_run_is_not_touched(uri, tmp_path, monkeypatch):
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        with mlflow.start_run() as mine:
            track(uri, tmp_path / "r", [make_spec()])
            assert mlflow.active_run().info.run_id == mine.info.run_id
        assert mlflow.get_tracking_uri() == uri
        after = MlflowClient(tracking_uri=uri).get_run(mine.info.run_id)
        assert after.data.metrics == {} and after.data.params == {}
        assert after.info.status == "FINISHED"
    finally:
        mlflow.set_tracking_uri(before)


def test_the_report_is_there_once(uri, tmp_path):
    page = tmp_path / "index.html"
    records = [make_record(s) for s in (make_spec(), make_spec(strategy="hift"))]
    for text in ("<p>first</p>", "<p>report</p>"):
        page.write_text(text)
        with Tracker(uri, "made_up") as tracker:
            tracker.fill((record, tmp_path) for record in records)
            tracker.report(page)
    client = MlflowClient(tracking_uri=uri)
    (run,) = runs(uri, "report")
    assert [f.path for f in client.list_artifacts(run.info.run_id, "report")] == [
        "report/index.html"
    ]
    kept = client.download_artifacts(run.info.run_id, "report/index.html", str(tmp_path))
    assert Path(kept).read_text() == "<p>report</p>"
    assert len(runs(uri, "cell")) == 2
    assert not [c for c in runs(uri, "cell") if client.list_artifacts(c.info.run_id)]


def test_log_levels_are_as_before(uri, tmp_path):
    before = [logging.getLogger(name).level for name in ("mlflow", "alembic")]
    track(uri, tmp_path / "r", [make_spec()])
    assert [logging.getLogger(name).level for name in ("mlflow", "alembic")] == before
