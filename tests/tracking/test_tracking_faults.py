"""Stores that are broken, die, or also have the user's own runs: the matrix goes on, the error is shown."""

import dataclasses
import logging

import mlflow
import pytest
from factories import curve_rows, make_record, make_spec, write_run
from mlflow import MlflowClient
from store import STEPS, history, runs, track

from benchmark.tracking.tracker import Tracker, tracking_uri


@pytest.mark.parametrize(
    "uri",
    ["sqlite:////proc/nowhere/mlflow.db", "http://127.0.0.1:9", "sqlite:///{file}"],
)
def test_a_broken_store_warns_once_in_one_line_and_never_raises(uri, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "not_a_database").write_text("no database\n" * 1000)
    spec, folder = make_spec(), tmp_path / "r"
    record = write_run(folder, make_record(spec), STEPS)
    with Tracker(uri.format(file=tmp_path / "not_a_database"), "made_up") as tracker:
        tracker.start(spec)
        tracker.steps(curve_rows(record, STEPS))
        tracker.finish(record, folder)
        tracker.sync([record], folder)
        tracker.report(folder)
    lines = [line for line in capsys.readouterr().err.splitlines() if "hift-bench" in line]
    assert len(lines) == 1 and "MLflow failed, continuing without it" in lines[0]


def test_a_store_that_dies_in_the_middle_is_left_and_rebuilt_later(uri, tmp_path, monkeypatch):
    def die(*_, **__):
        raise ConnectionError("gone")

    spec, folder = make_spec(), tmp_path / "r"
    record = write_run(folder, make_record(spec), STEPS)
    with Tracker(uri, "made_up") as tracker, monkeypatch.context() as patch:
        tracker.start(spec)
        patch.setattr(MlflowClient, "log_batch", die)
        tracker.finish(record, folder)
        assert tracker.broken
    with Tracker(uri, "made_up") as tracker:
        tracker.sync([record], folder)
    (run,) = runs(uri, "run")
    assert run.info.status == "FINISHED" and len(history(uri, run, "train/loss")) == STEPS


def test_an_interrupt_passes_through(uri, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(MlflowClient, "create_run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Tracker(uri, "made_up").start(make_spec())


def test_a_record_without_its_curve_file_is_still_logged(uri, tmp_path, capsys):
    record = dataclasses.replace(make_record(), curve="curves/gone.csv")
    with Tracker(uri, "made_up") as tracker:
        tracker.sync([record], tmp_path)
        assert not tracker.broken
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


def test_the_report_lands_on_every_cell(uri, tmp_path):
    out = tmp_path / "report"
    (out / "plots").mkdir(parents=True)
    (out / "index.html").write_text("<p>report</p>")
    (out / "plots" / "pareto.png").write_bytes(b"\x89PNG")
    records = [make_record(s) for s in (make_spec(), make_spec(strategy="hift"))]
    with Tracker(uri, "made_up") as tracker:
        tracker.sync(records, tmp_path)
        tracker.report(out)
    client = MlflowClient(tracking_uri=uri)
    for cell in runs(uri, "cell"):
        files = {f.path for f in client.list_artifacts(cell.info.run_id, "report")}
        assert files == {"report/index.html", "report/plots"}
    assert len(runs(uri, "cell")) == 2


def test_the_uri_is_read_when_a_tracker_is_made(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(None) == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    assert tracking_uri(None) == "sqlite:///elsewhere.db"
    assert tracking_uri("sqlite:///given.db") == "sqlite:///given.db"


def test_log_levels_are_as_before(uri, tmp_path):
    before = [logging.getLogger(name).level for name in ("mlflow", "alembic")]
    track(uri, tmp_path / "r", [make_spec()])
    assert [logging.getLogger(name).level for name in ("mlflow", "alembic")] == before
