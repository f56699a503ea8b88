"""What MLflow's pages show of an experiment: kind, description, columns and curves; and older stores."""

import base64
import json
import statistics
import zlib

import pytest
from factories import curve_rows, make_record, make_spec, write_run
from mlflow import MlflowClient
from mlflow.entities import Metric
from store import everything, fill, history, runs

from benchmark.records.record import Evaluation
from benchmark.tracking import dashboard, view
from benchmark.tracking.tracker import Tracker


def state(tags):
    form, packed = json.loads(tags[view.VIEW_TAG])["state"].split(";")
    assert form == "deflate"
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_an_experiment_opens_under_training_with_a_view_whose_columns_are_filled(uri, tmp_path):
    look = Evaluation(step=3, examples=48, tokens=9, flops=9, seconds=1.0, dev_loss=0.5, score=0.7)
    record = write_run(tmp_path, make_record(make_spec(), evaluations=[look]), 7)
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
        "made_up": f"http://h:1/#/experiments/{experiment}/runs?viewStateShareKey=strategies"
        "&workflowType=machine_learning"
    }


def test_curves_come_first_and_no_number_of_a_run_is_a_chart_of_one_bar(uri, tmp_path):
    """MLflow 3.17 draws a bar unless a number's latest step is 1 or more. It sorts a run's charts by name."""
    looks = [
        Evaluation(
            step=s, examples=s, tokens=s, flops=s, seconds=s / 2, dev_loss=1 / s, score=s / 9
        )
        for s in (3, 6, 20)
    ]
    record = write_run(tmp_path, make_record(make_spec(strategy="hift"), evaluations=looks))
    assert fill(uri, tmp_path, [record])
    (run,), (cell,) = runs(uri, "run"), runs(uri, "cell")
    drawn = {name for name in run.data.metrics if not name.startswith("system/")}
    assert all(
        history(uri, run, name)[-1][0] == 20 for name in drawn if not name.startswith("curve/")
    )
    assert all(history(uri, cell, name)[-1][0] == 1 for name in cell.data.metrics)
    assert sorted(name.partition("/")[0] for name in drawn)[0] == "curve"

    def points(name):
        return history(uri, run, name, times=False)

    assert points("score/main") == [(3, 3 / 9), (6, 6 / 9), (20, 0.8)]
    assert points("curve/held_out_loss") == [(3, 1 / 3), (6, 1 / 6), (20, 1 / 20)]
    assert points("curve/memory_mib") == [(0, 90), (1, 91)]
    assert points("curve/host_memory_mib") == [(step, min(step, 7)) for step in range(20)]
    assert points("memory/peak_mib") == [(0, 90), *((s, 91) for s in range(1, 19)), (20, 100)]
    rows = curve_rows(record)
    means = [statistics.fmean(row["trainable_ratio"] for row in rows[: n + 1]) for n in range(19)]
    assert [v for _, v in points("params/trainable_ratio_mean")] == [*means, 0.9 / 8]
    assert points("time/step_ms")[:3] == [(1, 201), (2, 201.5), (3, 202)]


@pytest.mark.slow
def test_a_run_of_an_earlier_version_gets_the_names_of_today_and_keeps_its_own(uri, tmp_path):
    record = write_run(tmp_path, make_record(make_spec()), 7)
    assert fill(uri, tmp_path, [record])
    client = MlflowClient(tracking_uri=uri)
    (run,) = runs(uri, "run")
    tags = {name: text for name, text in run.data.tags.items() if name != "hift.form"}
    old = client.create_run(run.info.experiment_id, run.info.start_time, tags)
    earlier = {"memory/peak_gpu_bytes": 7.0, "score/accuracy": 0.8, "train/loss": 0.5}
    for name, value in earlier.items():
        client.log_batch(old.info.run_id, metrics=[Metric(name, value, 1, 0)])
    client.set_terminated(old.info.run_id)
    client.delete_run(run.info.run_id)
    assert fill(uri, tmp_path, [record])
    (same,) = runs(uri, "run")
    assert same.info.run_id == old.info.run_id
    assert same.data.metrics == earlier | run.data.metrics
    assert len(history(uri, same, "curve/loss")) == 7
    before = everything(uri)
    assert fill(uri, tmp_path, [record]) and everything(uri) == before
