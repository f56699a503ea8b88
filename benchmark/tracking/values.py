"""The parameters, metrics and tags that MLflow gets from specs, curve rows and records. Imports no mlflow."""

import datetime
import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any

from benchmark.files import file_stem
from benchmark.records.consistency import as_text, flatten
from benchmark.records.record import RunRecord
from benchmark.sizes import MIB

STATUSES = {"success": "FINISHED", "interrupted": "KILLED"}
"""MLflow's status for the status of a record; every other one is FAILED."""

_STEP_METRICS = ("loss", "lr", "group", "trainable_ratio", "step_ms")


def milliseconds(moment: str) -> int:
    """A time in ISO 8601, as in a record, in milliseconds since 1970."""
    return round(datetime.datetime.fromisoformat(moment).timestamp() * 1000)


def digest(record: RunRecord) -> str:
    """A hash of the record's content, by which a record that is logged already is recognised."""
    return hashlib.sha256(record.to_json().encode()).hexdigest()[:16]


def is_trial(spec: Mapping[str, Any]) -> bool:
    """Whether the spec is a learning-rate trial, as `RunSpec.is_trial`."""
    return spec.get("score_on", "eval") != "eval"


def cell_key(spec: Mapping[str, Any]) -> str:
    """The cell's name in the characters of a run id, which need no quoting in an MLflow filter."""
    key = file_stem(*(spec[name] for name in ("task", "model", "label")))
    return f"{key}_search" if is_trial(spec) else key


def run_name(spec: Mapping[str, Any], *, of_cell: bool = False) -> str:
    """The name of a run, or of its cell, for people: first the strategy, then what it is compared on."""
    rate = f", trial of lr {spec['lr']:g}" if is_trial(spec) and not of_cell else ""
    what = f", seed {spec['seed']}{rate}" if not of_cell else ", search" if is_trial(spec) else ""
    return f"{spec['label']}{what}, {spec['task']}, {spec['model']}"


def parameters(spec: Mapping[str, Any]) -> dict[str, str]:
    """The spec as a flat dict with dotted names, in the characters that MLflow allows."""
    flat = flatten(spec)
    return {re.sub(r"[^\w\-. :/]", "_", name): as_text(value) for name, value in flat.items()}


def step_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a curve row, without missing ones (None, or NaN in a curve file)."""
    named = {f"train/{name}": row.get(name) for name in _STEP_METRICS}
    return {k: float(v) for k, v in named.items() if v is not None and math.isfinite(float(v))}


def final_metrics(record: RunRecord) -> dict[str, float]:
    """Scores, times, parameter ratios and memory of a record.

    A trial's scores are named `dev/`, not `score/`. Memory is in MiB.
    """
    metrics: dict[str, float | None] = {
        "time/total_s": record.times.total_s,
        "time/fixed_s": record.times.fixed_s,
    }
    if record.scores:
        kind = "dev" if is_trial(record.spec) else "score"
        scores = record.scores.all | {record.scores.metric: record.scores.main}
        scores["main"] = record.scores.main
        metrics |= {f"{kind}/{name}": value for name, value in scores.items()}
    if record.train:
        metrics |= {
            "time/train_s": record.train.seconds,
            "time/step_ms": record.train.step_ms_median,
            "time/step_ms_p90": record.train.step_ms_p90,
            "final_loss": record.train.final_loss,
        }
    if record.params:
        metrics |= {
            "params/trainable_ratio_peak": record.params.ratio_peak,
            "params/trainable_ratio_mean": record.params.ratio_mean,
            "params/total": record.params.total,
        }
    if record.memory:
        of = record.memory
        in_bytes = {"peak": of.peak_allocated, "load_peak": of.load_peak}
        in_bytes |= {"host_state": of.host_state, "host_rss_peak": of.host_rss_peak}
        for name, count in in_bytes.items():
            metrics[f"memory/{name}_mib"] = None if count is None else count / MIB
    return {name: float(value) for name, value in metrics.items() if value is not None}


def run_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a run as a whole, without the step metrics of its curve."""
    return {name: v for name, v in metrics.items() if not name.startswith("train/")}


def final_tags(record: RunRecord) -> dict[str, str]:
    """Tags: status, error, main metric, sources of data and model, and the code's git commit."""
    tags = {"hift.status": record.status, "hift.record": digest(record)}
    if record.error:
        tags["hift.error"] = " ".join(record.error.split())[:500]
    if record.scores:
        tags["hift.main_metric"] = record.scores.metric
    if record.memory:
        tags["hift.memory"] = record.memory.kind  # of the GPU, or counted tensors on a CPU
    if record.inputs:
        tags["hift.data_source"] = record.inputs.dataset_source
        tags["hift.model_source"] = record.inputs.model_source
    if record.code.get("git_sha"):
        tags["mlflow.source.git.commit"] = str(record.code["git_sha"])
        tags["hift.code_dirty"] = str(record.code.get("dirty"))
    return tags
