"""Rows of simulated peaks beside measured ones, from the records of `hift-bench memory --measure`."""

from pathlib import Path
from typing import Any

from benchmark.memory.measured import SCHEMA_VERSION, Measured
from benchmark.records import jsonfile
from benchmark.records.folders import Folder

TOLERANCE = {"counted_cpu_tensors": 2.0, "cuda": 5.0}
"""The allowed error of a prediction, in percent. Counted bytes are exact; an allocator rounds up."""
RULE = "within: the prediction is at most 2 % off counted CPU tensor bytes, 5 % off a CUDA allocator's peak"


def rows(results: Path) -> list[dict[str, Any]]:
    """One row per measurement: predicted and measured bytes, and the error in percent.

    Without measurements, one row with the verdict "not run". Raises UserError for a record that breaks the
    schema.
    """
    measurements = [
        jsonfile.read(Measured, path, SCHEMA_VERSION)
        for path in sorted((results / Folder.memory).glob("*.json"))
    ]
    if not measurements:
        return [
            {"verdict": "not run", "why": "no measurement on record: hift-bench memory --measure"}
        ]
    return [_row(one) for one in measurements]


def _row(one: Measured) -> dict[str, Any]:
    names = ("model", "strategy", "optimizer", "precision", "attention", "checkpointing")
    error = one.error_percent
    out = one.status == "oom"
    close = error is not None and abs(error) <= TOLERANCE[one.kind]
    return {name: one.setting[name] for name in names} | {
        # older records have no group_size of their own
        "m": one.group_size or one.setting["options"].get("group_size"),
        "batch_size": one.setting["batch_size"],
        "seq_len": one.setting["seq_len"],
        "device": one.device,
        "predicted_bytes": one.predicted,
        "measured_bytes": one.peak,
        "error_percent": error,
        "verdict": "cannot run here" if out else "within" if close else "outside",
        "why": "out of memory" if out else None,
    }
