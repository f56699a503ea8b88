"""The rows that `hift-bench memory` prints: simulated peaks, what fits a budget, measured peaks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark import sizes
from benchmark.memory import fit, simulate
from benchmark.memory.setting import Setting

NAMED = (
    "model",
    "optimizer",
    "precision",
    "attention",
    "checkpointing",
    "loss",
    "batch_size",
    "seq_len",
)
"""Fields of a setting that every row shows."""
Say = Callable[[str], None]


def simulated(setting: Setting, budget: int | None, device: str) -> dict[str, Any]:
    """One row: the worst group's bytes by kind, their sum, and whether that fits a budget (in bytes)."""
    found = simulate.peak(setting, device=device)
    row = _named(setting) | {
        "group": found.group,
        "groups": found.groups,
        "moment": found.moment,
        **{f"{kind}_bytes": size for kind, size in found.kinds.items()},
        "peak_bytes": found.total,
        "host_bytes": found.host,
        "largest": found.largest,
    }
    if budget is not None:
        row |= {"budget_bytes": budget, "fits": found.total <= budget}
    return row


def most(setting: Setting, budget: int, device: str) -> dict[str, Any]:
    """What fits the budget: the largest batch, length and m with the others unchanged, 0 if none does.

    Simulates about 10 settings for each of the three.
    """
    fits = fit.what_fits(setting, budget, device=device)
    return {
        f"most_{field}": fits[field].value if field in fits else None
        for field in ("batch_size", "seq_len", "group_size")
    }


def verdict(row: dict[str, Any]) -> str:
    """A row of `simulated` in one line: bytes on the device and on the host, and whether the budget holds
    them."""
    host = f" and {sizes.readable(row['host_bytes'])} of host memory" if row["host_bytes"] else ""
    said = f"{_name(row)}: {sizes.readable(row['peak_bytes'])} on the device{host}"
    if "fits" in row:
        budget = sizes.readable(row["budget_bytes"])
        said += f"; {'fits' if row['fits'] else 'does not fit'} {budget}"
    return said


def smallest(settings: list[Setting], device: str) -> str:
    """One line with the smallest peak that any of the settings has, with one example of two tokens."""
    peaks = {s.strategy: fit.smallest(s, device=device).total for s in settings}
    least = min(peaks, key=lambda name: peaks[name])
    return (
        f"nothing fits; the smallest peak, of {least} with one example of {fit.SHORTEST} tokens, is "
        f"{sizes.readable(peaks[least])}"
    )


def measured(setting: Setting, folder: Path, say: Say) -> dict[str, Any]:
    """One row: the measured peak, the predicted one, and the error in percent."""
    from benchmark.memory import measured as real

    record = real.measure(setting, folder, say)
    return _named(setting) | {
        "device": record.device,
        "status": record.status,
        "predicted_bytes": record.predicted,
        "measured_bytes": record.peak,
        "error_percent": record.error_percent,
        "load_bytes": record.load_peak,
        "forward_bytes": record.phases.get("forward"),
        "backward_bytes": record.phases.get("backward"),
        "step_bytes": record.phases.get("step"),
        "reserved_bytes": record.reserved,
        "rss_bytes": record.rss,
    }


def _named(setting: Setting) -> dict[str, Any]:
    return {"strategy": setting.strategy, "m": setting.group_size} | {
        name: getattr(setting, name) for name in NAMED
    }


def _name(row: dict[str, Any]) -> str:
    m = "" if row["m"] is None else f", m = {row['m']}"
    return f"{row['strategy']} in {row['precision']}{m}"
