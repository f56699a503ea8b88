"""What of a spec, a curve row and a record goes to MLflow, and under which name. No mlflow here."""

import datetime
import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.files import file_stem
from benchmark.records.consistency import as_text, flatten
from benchmark.records.record import RunRecord

STATUSES = {"success": "FINISHED", "interrupted": "KILLED"}
"""MLflow's word for a record's status; FAILED for all others."""

_STEP_METRICS = ("loss", "lr", "group", "trainable_ratio", "step_ms")
_PEAK_NAMES = {
    "cuda": "memory/peak_gpu_bytes",
    "counted_cpu_tensors": "memory/peak_counted_cpu_tensor_bytes",
}


def milliseconds(moment: str) -> int:
    """A record's UTC time (ISO 8601) as MLflow's milliseconds since 1970."""
    return round(datetime.datetime.fromisoformat(moment).timestamp() * 1000)


def digest(record: RunRecord) -> str:
    """Names the record's content, so that what is logged already is known again."""
    return hashlib.sha256(record.to_json().encode()).hexdigest()[:16]


def is_trial(spec: Mapping[str, Any]) -> bool:
    return spec.get("score_on", "eval") != "eval"


def cell_key(spec: Mapping[str, Any]) -> str:
    """The cell's name in the characters of a run id, so it needs no quoting in an MLflow filter."""
    key = file_stem(*(spec[name] for name in ("task", "model", "label")))
    return f"{key}_search" if is_trial(spec) else key


def parameters(spec: Mapping[str, Any]) -> dict[str, str]:
    """The resolved settings with dotted names, in the characters MLflow allows."""
    flat = flatten(spec)
    return {re.sub(r"[^\w\-. :/]", "_", name): as_text(value) for name, value in flat.items()}


def step_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """A curve row's metrics, less those it does not have (None, or NaN from a file)."""
    found = {f"train/{name}": row.get(name) for name in _STEP_METRICS}
    return {k: float(v) for k, v in found.items() if v is not None and math.isfinite(float(v))}


def final_metrics(record: RunRecord) -> dict[str, float]:
    """Scores and costs. A dev score is never called a score, counted bytes never GPU memory."""
    found: dict[str, float | None] = {
        "time/total_s": record.times.total_s,
        "time/fixed_s": record.times.fixed_s,
    }
    if record.scores:
        kind = "dev" if is_trial(record.spec) else "score"
        scores = record.scores.all | {record.scores.metric: record.scores.main}
        found |= {f"{kind}/{name}": value for name, value in scores.items()}
    if record.train:
        found |= {
            "time/train_s": record.train.seconds,
            "time/step_ms_median": record.train.step_ms_median,
            "time/step_ms_p90": record.train.step_ms_p90,
            "final_loss": record.train.final_loss,
        }
    if record.params:
        found |= {
            "params/trainable_ratio_peak": record.params.ratio_peak,
            "params/trainable_ratio_mean": record.params.ratio_mean,
            "params/total": record.params.total,
        }
    if record.memory:
        found |= {
            _PEAK_NAMES[record.memory.kind]: record.memory.peak_allocated,
            "memory/load_peak_bytes": record.memory.load_peak,
            "memory/host_state_bytes": record.memory.host_state,
            "memory/host_rss_peak_bytes": record.memory.host_rss_peak,
        }
    return {name: float(value) for name, value in found.items() if value is not None}


def of_the_whole(metrics: Mapping[str, float]) -> dict[str, float]:
    """Of a run's metrics those of the run as a whole, less the last values of its curve."""
    return {name: v for name, v in metrics.items() if not name.startswith("train/")}


def final_tags(record: RunRecord) -> dict[str, str]:
    """What came of the run and where it was made; MLflow shows the commit by its own tag."""
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


def artifact_folder(uri: str) -> Path | None:
    """Where a local sqlite store keeps artifacts: mlartifacts beside the file; None for others."""
    path = uri.removeprefix("sqlite:///")
    return Path(path).resolve().parent / "mlartifacts" if path != uri else None
