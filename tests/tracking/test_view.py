"""What MLflow's pages show of an experiment: kind, description, columns and curves; and older stores."""

import base64
import json
import zlib

import pytest
from factories import make_record, make_spec, write_run
from mlflow import MlflowClient
from mlflow.entities import Metric
from store import everything, fill, runs

from benchmark.tracking import dashboard, view
from benchmark.tracking.tracker import Tracker


def state(tags):
    form, packed = json.loads(tags[view.VIEW_TAG])["state"].split(";")
    assert form == "deflate"
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_an_experiment_opens_under_training_with_a_view_whose_columns_are_filled(uri, tmp_path):
    record = write_run(tmp_path, make_record(make_spec()), 7)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("made_up", tags={view.NOTE_TAG: "a user's own"})
    with Tracker(uri, "made_up", "What it is about.") as tracker:
        tracker.fill([(record, tmp_path)])
    tags = client.get_experiment(experiment).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert tags[view.NOTE_TAG] == "a user's own", "what a user wrote stays"
    shown = state(tags)
    (run,) = client.search_runs([experiment], shown["searchFilter"])
    filled = {f"metrics.`{name}`" for name in run.data.metrics}
    filled |= {f"params.`{name}`" for name in run.data.params}
    assert set(shown["selectedColumns"]) <= filled and shown["orderByKey"] in filled
    charts = [chart for chart in shown["compareRunCharts"] if not chart["deleted"]]
    kinds = [chart["type"] for chart in charts]
    assert kinds == sorted(kinds, reverse=True), "curves first"
    assert {chart["metricKey"] for chart in charts} <= run.data.metrics.keys()
    assert dashboard.views(uri, "http://h:1") == {
        "made_up": f"http://h:1/#/experiments/{experiment}/runs?viewStateShareKey=hift"
        "&workflowType=machine_learning"
    }


@pytest.mark.slow
def test_a_run_of_an_earlier_version_gets_the_names_of_today_and_keeps_its_own(uri, tmp_path):
    record = write_run(tmp_path, make_record(make_spec()), 7)
    assert fill(uri, tmp_path, [record])
    client = MlflowClient(tracking_uri=uri)
    (run,) = runs(uri, "run")
    names = ("score/main", "memory/peak_mib")
    lacking = {name: run.data.metrics[name] for name in names}
    old = client.create_run(run.info.experiment_id, run.info.start_time, run.data.tags)
    for name in run.data.metrics.keys() - lacking.keys() | {"memory/peak_gpu_bytes"}:
        value = run.data.metrics.get(name, 7.0)
        client.log_batch(old.info.run_id, metrics=[Metric(name, value, 1, 0)])
    client.set_terminated(old.info.run_id)
    client.delete_run(run.info.run_id)
    assert fill(uri, tmp_path, [record])
    (same,) = runs(uri, "run")
    assert same.info.run_id == old.info.run_id and same.data.metrics["memory/peak_gpu_bytes"] == 7
    assert {name: same.data.metrics[name] for name in names} == lacking
    before = everything(uri)
    assert fill(uri, tmp_path, [record]) and everything(uri) == before
