"""Tracking to a real sqlite store without a server: no run is logged twice, lost, or stopped by an error."""

import dataclasses
import math
import shutil
import statistics
from pathlib import Path

import mlflow
import pytest
from factories import curve_rows, make_failure, make_record, make_spec
from store import STEPS, content, everything, fill, history, runs, three, track

from benchmark.tracking.tracker import Tracker


def test_live_run_has_one_parent_and_a_child_per_seed_with_the_whole_curve(uri, tmp_path):
    records = track(uri, tmp_path / "r", three())
    (parent,) = runs(uri, "cell")
    children = sorted(runs(uri, "run"), key=lambda run: run.data.tags["hift.run_id"])
    assert [c.data.tags["hift.run_id"] for c in children] == [r.run_id for r in records]
    assert {c.data.tags["mlflow.parentRunId"] for c in children} == {parent.info.run_id}
    assert {c.info.status for c in [*children, parent]} == {"FINISHED"}
    for child, record in zip(children, records, strict=True):
        rows = curve_rows(record, STEPS)
        for column in ("loss", "lr", "group", "trainable_ratio"):
            logged = history(uri, child, f"curve/{column}", times=False)
            assert logged == [(row["step"], row[column]) for row in rows]
        measured = [(row["step"], row["step_ms"]) for row in rows if row["step_ms"] is not None]
        assert history(uri, child, "curve/step_ms", times=False) == measured
        assert child.data.params["lr"] == "5e-05" and child.data.params["optimizer"] == "adamw"
        metrics = child.data.metrics
        assert metrics["score/accuracy"] == record.scores.main
        assert metrics["params/trainable_ratio_mean"] == record.params.ratio_mean
        assert metrics["score/main"] == record.scores.main
        assert metrics["time/step_ms"] == record.train.step_ms_median
        assert metrics["memory/peak_mib"] * 2**20 == record.memory.peak_allocated
        assert child.data.tags["hift.memory"] == "counted_cpu_tensors"
        assert child.info.run_name == f"full, seed {record.spec['seed']}, glue/sst2, minilm"
        (used,) = child.inputs.dataset_inputs
        assert used.dataset.name == record.inputs.dataset
        path = mlflow.artifacts.download_artifacts(
            run_id=child.info.run_id, artifact_path=f"record/{record.run_id}.json", tracking_uri=uri
        )
        assert Path(path).read_text(encoding="utf-8") == record.to_json()
    scores = [record.scores.main for record in records]
    assert parent.data.metrics["seeds"] == 3
    assert parent.data.metrics["score/accuracy_mean"] == pytest.approx(statistics.fmean(scores))
    assert parent.data.metrics["score/accuracy_std"] == pytest.approx(statistics.stdev(scores))
    assert parent.data.metrics["score/main"] == pytest.approx(statistics.fmean(scores))
    assert parent.info.run_name == "full, glue/sst2, minilm"
    assert "curve/loss_mean" not in parent.data.metrics


@pytest.mark.slow
def test_syncing_what_was_tracked_live_changes_nothing(uri, tmp_path):
    folder = tmp_path / "r"
    records = track(uri, folder, three() + three(strategy="hift"))
    before = everything(uri)
    assert len(before) == 8
    for _ in range(2):
        assert fill(uri, folder, records)
    assert everything(uri) == before


@pytest.mark.slow
def test_a_lost_store_is_rebuilt_by_sync(uri, tmp_path, empty_store):
    folder = tmp_path / "r"
    records = track(uri, folder, three())
    (tmp_path / "other").mkdir()
    shutil.copy(empty_store, tmp_path / "other" / "mlflow.db")
    rebuilt = f"sqlite:///{tmp_path}/other/mlflow.db"
    assert fill(rebuilt, folder, records)
    once = everything(rebuilt)
    assert fill(rebuilt, folder, records) and everything(rebuilt) == once

    assert content(rebuilt) == content(uri)
    child = runs(rebuilt, "run", **{"hift.run_id": records[0].run_id})[0]
    seconds = [row["seconds"] for row in curve_rows(records[0], STEPS)]
    start = child.info.start_time
    assert [t - start for *_, t in history(rebuilt, child, "curve/loss")] == [
        round(s * 1000) for s in seconds
    ]


def test_an_interrupted_run_is_killed_and_then_replaced_by_the_next_attempt(uri, tmp_path):
    spec, folder = make_spec(), tmp_path / "r"
    with pytest.raises(KeyboardInterrupt), Tracker(uri, "made_up") as tracker:
        tracker.start(spec)
        tracker.steps(spec, curve_rows(make_record(spec), STEPS)[:4])
        raise KeyboardInterrupt
    (broken_off,) = runs(uri, "run")
    assert broken_off.info.status == runs(uri, "cell")[0].info.status == "KILLED"
    assert len(history(uri, broken_off, "curve/loss")) == 4, "what was buffered is not lost"

    track(uri, folder, [spec])
    (child,) = runs(uri, "run")
    (parent,) = runs(uri, "cell")
    assert child.info.status == parent.info.status == "FINISHED"
    assert len(history(uri, child, "curve/loss")) == STEPS, "one attempt's history, not two"


def test_a_repeated_run_appears_once(uri, tmp_path):
    for _ in range(2):
        track(uri, tmp_path / "r", three())
    assert len(runs(uri, "cell")) == 1 and len(runs(uri, "run")) == 3


def test_other_settings_are_another_run_and_only_the_newest_counts(uri, tmp_path):
    track(uri, tmp_path / "r", [make_spec(lr=1e-4)])
    track(uri, tmp_path / "r", [make_spec(lr=2e-4, seed=0)])
    (old,) = runs(uri, "run", **{"hift.superseded": "true"})
    assert len(runs(uri, "run")) == 2 and old.data.params["lr"] == "0.0001"
    (parent,) = runs(uri, "cell")
    assert parent.data.metrics["seeds"] == 1


def test_failures_and_trials(uri, tmp_path):
    trial = make_record(make_spec(score_on="dev", dev_examples=9))
    failure = make_failure(make_spec(seed=1), "oom", "out of memory\nby 3 GiB")
    interrupted = make_failure(make_spec(seed=2), "interrupted", "stopped by the user")
    assert fill(uri, tmp_path, [trial, failure, interrupted])
    (logged,) = runs(uri, "trial")
    assert logged.data.metrics["dev/accuracy"] == 0.8
    assert not [name for name in logged.data.metrics if name.startswith("score/")]
    (search,), (cell,) = runs(uri, "search"), runs(uri, "cell")
    assert search.info.run_id != cell.info.run_id
    status = {run.data.tags["hift.status"]: run.info.status for run in runs(uri, "run")}
    assert status == {"oom": "FAILED", "interrupted": "KILLED"}
    (oom,) = runs(uri, "run", **{"hift.status": "oom"})
    assert oom.data.tags["hift.error"] == "out of memory by 3 GiB"
    assert cell.info.status == "KILLED" and "score/accuracy_mean" not in cell.data.metrics


def test_memory_is_in_mib_and_says_of_what(uri, tmp_path):
    record = make_record()
    memory = dataclasses.replace(record.memory, kind="cuda", load_peak=11 * 2**20)
    assert fill(uri, tmp_path, [dataclasses.replace(record, memory=memory)])
    (run,) = runs(uri, "run")
    assert run.data.metrics["system/load_peak_mib"] == 11
    assert run.data.tags["hift.memory"] == "cuda"
    assert not [name for name in run.data.metrics if "bytes" in name]


def test_a_long_parameter_becomes_an_artifact(uri, tmp_path):
    prompt = "x" * 10_000
    track(uri, tmp_path / "r", [make_spec(options={"prompt": prompt, "group_size": 1})])
    (run,) = runs(uri, "run")
    assert run.data.params["options.prompt"] == "artifact parameters/options.prompt.txt"
    assert run.data.params["options.group_size"] == "1"
    path = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id,
        artifact_path="parameters/options.prompt.txt",
        tracking_uri=uri,
    )
    assert Path(path).read_text(encoding="utf-8") == prompt


def test_a_value_that_is_not_finite_is_left_out(uri):
    spec = make_spec()
    rows = curve_rows(make_record(spec), 3)
    rows[1]["loss"], rows[2]["loss"] = None, math.nan
    with Tracker(uri, "made_up") as tracker:
        tracker.start(spec)
        tracker.steps(spec, rows)
    (run,) = runs(uri, "run")
    assert [step for step, *_ in history(uri, run, "curve/loss")] == [0]
