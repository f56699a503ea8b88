"""The parameters, metrics and tags that MLflow gets from specs, curve rows and records. Imports no mlflow."""

import datetime
import hashlib
import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmark.files import file_stem
from benchmark.records.consistency import as_text, flatten
from benchmark.records.record import RunRecord
from benchmark.sizes import MIB

STATUSES = {"success": "FINISHED", "interrupted": "KILLED"}
"""MLflow's status for the status of a record; every other one is FAILED."""

CURVE = "curve/"
"""What the names of a step's metrics begin with: MLflow sorts the charts of a run by name, so they come
first."""
FORM = "2"
"""The form of what is logged: runs of an earlier one get what they lack."""
_STEP_METRICS = ("loss", "lr", "group", "trainable_ratio", "step_ms")
_STEP_BYTES = {"memory_mib": "peak_bytes", "host_memory_mib": "host_bytes"}
_POINTS = 50
"""Most steps for which the numbers of a run are logged as they were so far."""


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
    """The metrics of a curve row, without missing ones (None, or NaN in a curve file). Memory is in MiB."""
    named = {name: _finite(row.get(name)) for name in _STEP_METRICS}
    for name, column in _STEP_BYTES.items():
        count = _finite(row.get(column))
        named[name] = None if count is None else _mebibytes(count)
    return {f"{CURVE}{name}": value for name, value in named.items() if value is not None}


def so_far(
    record: RunRecord, rows: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[int, float, dict[str, float]]]:
    """The numbers of a run as they were after some of its steps, those of evaluations among them: the step,
    its seconds of training, and the metrics by name.

    rows: the run's whole curve. MLflow draws a number that it has for one step alone as a chart of one bar.
    Those of the last step are in `final_metrics`.
    """
    last = last_step(record)
    for at in record.evaluations:
        named = {f"{CURVE}held_out_loss": at.dev_loss}
        if at.step < last:
            named |= _scores(record, at.score)
        yield at.step, at.seconds, {k: v for k, v in named.items() if v is not None}
    for number in sorted({len(rows) * part // _POINTS for part in range(1, _POINTS)} - {0}):
        if (row := rows[number - 1])["step"] < last:
            yield int(row["step"]), float(row["seconds"]), _of_part(record, rows[:number])


def _of_part(record: RunRecord, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The numbers of a run of these rows alone."""
    peaks, host, times, ratios = (
        [value for row in rows if (value := _finite(row.get(column))) is not None]
        for column in ("peak_bytes", "host_bytes", "step_ms", "trainable_ratio")
    )
    named = {"time/train_s": float(rows[-1]["seconds"])}
    if peaks and record.memory:
        named["memory/peak_mib"] = _mebibytes(max(*peaks, record.memory.load_peak or 0))
    if host:
        named["memory/host_state_mib"] = _mebibytes(max(host))
    if times:
        named["time/step_ms"] = statistics.median(times)
        named["time/step_ms_p90"] = sorted(times)[math.ceil(0.9 * len(times)) - 1]
    if ratios:
        named["params/trainable_ratio_mean"] = statistics.fmean(ratios)
        named["params/trainable_ratio_peak"] = max(ratios)
    return named


def last_step(record: RunRecord) -> int:
    """The step of a run's final metrics: its last one, 0 where it has none."""
    return record.train.steps if record.train else 0


def _scores(record: RunRecord, main: float | None) -> dict[str, float | None]:
    """The main score by its names."""
    metric = record.scores.metric if record.scores else None
    return {"score/main": main} | ({f"score/{metric}": main} if metric else {})


def _mebibytes(count: float) -> float:
    """Bytes in MiB, with as many digits as a column of MLflow's table shows."""
    return round(count / MIB, 2)


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)


def final_metrics(record: RunRecord) -> dict[str, float]:
    """Scores, times, parameter ratios and memory of a record, in MiB.

    A trial's scores are named `dev/`, not `score/`. What says more of the machine than of the method is named
    `system/`, which MLflow shows apart.
    """
    metrics: dict[str, float | None] = {
        "system/total_s": record.times.total_s,
        "system/fixed_s": record.times.fixed_s,
    }
    if record.scores:
        kind = "dev" if is_trial(record.spec) else "score"
        scores = record.scores.all | {record.scores.metric: record.scores.main}
        scores["main"] = record.scores.main
        metrics |= {f"{kind}/{name}": value for name, value in scores.items()}
    if record.train:
        metrics["system/others_share"] = record.train.others
        metrics |= {
            "time/train_s": record.train.seconds,
            "time/step_ms": record.train.step_ms_median,
            "time/step_ms_p90": record.train.step_ms_p90,
        }
    if record.params:
        metrics |= {
            "params/trainable_ratio_peak": record.params.ratio_peak,
            "params/trainable_ratio_mean": record.params.ratio_mean,
        }
    if record.memory:
        of = record.memory
        in_bytes: dict[str, int | None] = {
            "memory/peak": of.peak,
            "memory/host_state": of.host_state,
            "system/load_peak": of.load_peak,
            "system/rss_peak": of.host_rss_peak,
        }
        for name, count in in_bytes.items():
            metrics[f"{name}_mib"] = None if count is None else _mebibytes(count)
    return {name: float(value) for name, value in metrics.items() if value is not None}


def run_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a run as a whole, without the step metrics of its curve, of this form or the first."""
    return {name: v for name, v in metrics.items() if not name.startswith((CURVE, "train/"))}


def final_tags(record: RunRecord) -> dict[str, str]:
    """Tags: status, error, main metric, size, sources of data and model, and the code's git commit."""
    tags = {"hift.status": record.status, "hift.record": digest(record), "hift.form": FORM}
    if record.error:
        tags["hift.error"] = " ".join(record.error.split())[:500]
    if record.scores:
        tags["hift.main_metric"] = record.scores.metric
    if record.params:
        tags["hift.parameters"] = str(record.params.total)
    if record.memory:
        tags["hift.memory"] = record.memory.kind  # of the GPU, or counted tensors on a CPU
    if record.inputs:
        tags["hift.data_source"] = record.inputs.dataset_source
        tags["hift.model_source"] = record.inputs.model_source
    if record.code.get("git_sha"):
        tags["mlflow.source.git.commit"] = str(record.code["git_sha"])
        tags["hift.code_dirty"] = str(record.code.get("dirty"))
    return tags
