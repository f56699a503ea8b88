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

STATUSES = {"success": "FINISHED", "interrupted": "KILLED"}
"""MLflow's status for the status of a record; every other one is FAILED."""

_STEP_METRICS = ("loss", "lr", "group", "trainable_ratio", "step_ms")
_PEAK_NAMES = {
    "cuda": "memory/peak_gpu_bytes",
    "counted_cpu_tensors": "memory/peak_counted_cpu_tensor_bytes",
}


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

    A trial's scores are named `dev/`, not `score/`, and counted bytes are not named GPU memory.
    """
    metrics: dict[str, float | None] = {
        "time/total_s": record.times.total_s,
        "time/fixed_s": record.times.fixed_s,
    }
    if record.scores:
        kind = "dev" if is_trial(record.spec) else "score"
        scores = record.scores.all | {record.scores.metric: record.scores.main}
        metrics |= {f"{kind}/{name}": value for name, value in scores.items()}
    if record.train:
        metrics |= {
            "time/train_s": record.train.seconds,
            "time/step_ms_median": record.train.step_ms_median,
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
        metrics |= {
            _PEAK_NAMES[record.memory.kind]: record.memory.peak_allocated,
            "memory/load_peak_bytes": record.memory.load_peak,
            "memory/host_state_bytes": record.memory.host_state,
            "memory/host_rss_peak_bytes": record.memory.host_rss_peak,
        }
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
    if record.inputs:
        tags["hift.data_source"] = record.inputs.dataset_source
        tags["hift.model_source"] = record.inputs.model_source
    if record.code.get("git_sha"):
        tags["mlflow.source.git.commit"] = str(record.code["git_sha"])
        tags["hift.code_dirty"] = str(record.code.get("dirty"))
    return tags
