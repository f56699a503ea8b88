"""Rows of the table of step times, from the records of `hift-bench speed --save`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.records.folders import Folder
from benchmark.timing import speed_record
from benchmark.timing.speed_record import Row, Timed

RULE = (
    "inconclusive: the range of the ratio over the sweeps is wider than "
    f"{speed_record.SCATTER_PERCENT} % of the ratio, or other processes used more than "
    f"{speed_record.MOST_OTHERS:.0%} of the processors during the timing, or, in records without that share, "
    f"the load in the minute before it was above {speed_record.BUSY:g} per core."
)


def rows(results: Path) -> list[dict[str, Any]]:
    """One row per strategy and yardstick of every timing in results/speed.

    Without timings, one row with the verdict "not run". Raises UserError for a file that breaks the schema.
    """
    timings = speed_record.read_all(results / Folder.speed)
    if not timings:
        return [{"verdict": "not run", "why": "no step times on record: hift-bench speed --save"}]
    return [
        _row(number, timed, row)
        for number, timed in enumerate(timings, start=1)
        for row in timed.rows
    ]


def notices(results: Path) -> Sequence[str]:
    """A sentence about each timing, by its number in `rows`: its settings, machine, load, code and date."""
    sentences = (
        f"Timing {number}: {one.model}, {one.optimizer}, {one.batch_size} × {one.seq_len}{_recomputed(one)}; "
        f"{one.environment['cpu']}, {one.environment['device']}, {one.environment['threads']} threads; "
        f"{_load(one)} on {one.environment['cores']} cores; code {_code(one)}; {one.started[:10]}."
        for number, one in enumerate(speed_record.read_all(results / Folder.speed), start=1)
    )
    return list(sentences)


def _row(number: int, timed: Timed, row: Row) -> dict[str, Any]:
    why = speed_record.noise(timed, row)
    return {
        "timing": number,
        "model": timed.model,
        "optimizer": timed.optimizer,
        "batch_size": timed.batch_size,
        "seq_len": timed.seq_len,
        "name": row.name,
        "m": row.m,
        "mean_ms": row.mean_ms,
        "ratio_to_full": row.ratio_to_full,
        "ratio_low": row.ratio_low,
        "ratio_high": row.ratio_high,
        "ratio_to_limit": row.ratio_to_limit,
        "ratio_to_bare": row.ratio_to_bare,
        "saved_activation_bytes": row.saved_activation_bytes,
        "state_bytes": row.state_bytes,
        "sweeps": timed.sweeps,
        "steps": row.steps,
        "load": timed.load,
        "device": timed.environment["device"],
        "code": _code(timed),
        "verdict": "inconclusive" if why else "no published value",
        "why": why,
    }


def _load(timed: Timed) -> str:
    if timed.others is None:
        return f"load {timed.load}"
    return f"{timed.others:.1%} by other processes"


def _recomputed(timed: Timed) -> str:
    return ", activations recomputed" if timed.checkpointing else ""


def _code(timed: Timed) -> str:
    sha, dirty = timed.code.get("git_sha"), timed.code.get("dirty")
    return f"{sha or timed.code.get('version')}{', changed' if dirty else ''}"
