"""The rows that `hift-bench memory` prints: simulated peaks, what fits a budget, measured peaks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmark import sizes
from benchmark.errors import UserError
from benchmark.memory import fit, simulate
from benchmark.memory.setting import Setting

NAMED = (
    "model",
    "optimizer",
    "precision",
    "attention",
    "checkpointing",
    "batch_size",
    "seq_len",
)
"""Fields of a setting that every row shows."""
Say = Callable[[str], None]


def simulated(setting: Setting, budget: int | None, device: str, say: Say) -> dict[str, Any]:
    """One row: the worst group's bytes by kind, their sum, and with a budget (in bytes) what fits it.

    `most_*` are the largest values that fit with the others unchanged, 0 if none does.
    """
    say(f"{setting.model}, {setting.strategy}: simulating a sweep")
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
        fits = fit.what_fits(setting, budget, device=device, report=say)
        row |= {"budget_bytes": budget, "fits": found.total <= budget} | {
            f"most_{field}": fits[field].value if field in fits else None
            for field in ("batch_size", "seq_len", "group_size")
        }
    return row


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


def check_any_fits(settings: Sequence[Setting], budget: int, device: str) -> None:
    """Raises UserError, with the smallest possible peak, if no setting fits the budget (in bytes)."""
    least = min(fit.smallest(setting, device=device).total for setting in settings)
    if least > budget:
        raise UserError(
            f"budget of {sizes.readable(budget)}: nothing fits; the smallest peak found, with one "
            f"example of {fit.SHORTEST} tokens, is {sizes.readable(least)}"
        )


def _named(setting: Setting) -> dict[str, Any]:
    return {"strategy": setting.strategy, "m": setting.group_size} | {
        name: getattr(setting, name) for name in NAMED
    }
