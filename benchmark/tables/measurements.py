"""The simulator beside the real step: what `hift-bench memory --measure` has put on record."""

from pathlib import Path
from typing import Any

from benchmark.memory.measured import SCHEMA_VERSION, Measured
from benchmark.records import jsonfile

TOLERANCE = {"counted_cpu_tensors": 2.0, "cuda": 5.0}
"""Percent by which a prediction may be off: counted bytes are exact, an allocator rounds."""
RULE = "within: the prediction is at most 2 % off counted CPU tensor bytes, 5 % off a CUDA allocator's peak"


def rows(results: Path) -> list[dict[str, Any]]:
    """One row per measurement, bytes: predicted, measured, error in percent. One row that says so where
    nothing is on record. Raises UserError for a record that is off schema."""
    found = [
        jsonfile.read(Measured, path, SCHEMA_VERSION)
        for path in sorted((results / "memory").glob("*.json"))
    ]
    if not found:
        return [
            {"verdict": "not run", "why": "no measurement on record: hift-bench memory --measure"}
        ]
    return [_row(one) for one in found]


def _row(one: Measured) -> dict[str, Any]:
    names = ("model", "strategy", "optimizer", "precision", "attention", "checkpointing")
    error = one.error_percent
    out = one.status == "oom"
    close = error is not None and abs(error) <= TOLERANCE[one.kind]
    return {name: one.setting[name] for name in names} | {
        "m": one.group_size
        or one.setting["options"].get("group_size"),  # older records lack the first
        "batch_size": one.setting["batch_size"],
        "seq_len": one.setting["seq_len"],
        "device": one.device,
        "predicted_bytes": one.predicted,
        "measured_bytes": one.peak,
        "error_percent": error,
        "verdict": "cannot run here" if out else "within" if close else "outside",
        "why": "out of memory" if out else None,
    }
