"""The table of step times, from what `hift-bench speed --save` has put on record and from nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.timing import speed_record
from benchmark.timing.speed_record import Row, Timed

SCATTER_PERCENT = 10
"""The widest range of a ratio over its sweeps, in percent of the ratio, that is not inconclusive."""
RULE = (
    f"inconclusive: the ratio's range over the sweeps is wider than {SCATTER_PERCENT} % of it, or the "
    f"machine was busy, with a load above {speed_record.BUSY:g} per core in the minute before."
)


def rows(results: Path) -> list[dict[str, Any]]:
    """A row per strategy and yardstick of every timing in results/speed; one that says "not run" where there
    is none. Raises UserError for a timing that is off schema."""
    found = speed_record.read_all(results / "speed")
    if not found:
        return [{"verdict": "not run", "why": "no step times on record: hift-bench speed --save"}]
    return [_row(timed, row) for timed in found for row in timed.rows]


def notices(results: Path) -> Sequence[str]:
    """What the person must know of the timings on record, beside their numbers."""
    found = speed_record.read_all(results / "speed")
    said = (
        f"{one.model}, {one.optimizer}, {one.batch_size} × {one.seq_len}: {one.environment['cpu']}, "
        f"{one.environment['device']}, {one.environment['threads']} threads; load {one.load} on "
        f"{one.environment['cores']} cores; code {_code(one)}; {one.started[:10]}."
        for one in found
    )
    return list(said)


def _row(timed: Timed, row: Row) -> dict[str, Any]:
    why = _noise(timed, row)
    return {
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


def _noise(timed: Timed, row: Row) -> str | None:
    """Why the row's ratio says nothing; None where it does."""
    cores = timed.environment["cores"]
    if speed_record.busy(timed.load, cores):
        return f"the machine was busy: load {timed.load:g} on {cores} cores"
    if row.ratio_to_full is None or row.ratio_low is None or row.ratio_high is None:
        return "without full there is no ratio"
    width = row.ratio_high - row.ratio_low
    if 100 * width > SCATTER_PERCENT * row.ratio_to_full:
        return f"{row.ratio_low:.2f} to {row.ratio_high:.2f} over {timed.sweeps} sweeps"
    return None


def _code(timed: Timed) -> str:
    sha, dirty = timed.code.get("git_sha"), timed.code.get("dirty")
    return f"{sha or timed.code.get('version')}{', changed' if dirty else ''}"
