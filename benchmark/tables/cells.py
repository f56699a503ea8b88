"""Rows of numbers as text for people: rounded, with units in the headings and "–" for a missing value."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.sizes import MIB
from benchmark.tables.definition import RecordTable

HEADINGS = {
    "trainable_params": ("#Trainable, M", 2),
    "para": ("#Para, MB", 2),
    "gra": ("#Gra, MB", 2),
    "sta": ("#Sta, MB", 2),
    "pgs": ("#PGS, GB", 2),
    "residual_states": ("Residual, GB", 2),
    "total": ("Total, GB", 2),
    "reduction_percent": ("reduction, %", 4),
}

WHOLE = 7
"""Most columns of a table that a terminal shows whole."""
_WIDE = {
    *("published by", "#Trainable, M", "#Para, MB", "Residual, GB", "trainable ratio, peak"),
    *("checkpointing", "measured, MiB", "over limit", "saved activations, MiB"),
    *("mean, ms", "optimizer state, MiB", "sweeps", "model, batch × length"),
}
"""Headings, without what a colon adds, of the columns that a terminal leaves to --wide."""


def in_terminal(shown: Sequence[Mapping[str, str]]) -> tuple[dict[str, str], list[str]]:
    """What all rows of a table as text have in common, by heading, and the headings of 80 characters.

    A table of few columns, or of one row, has all of them and nothing in common.
    """
    names = list(shown[0])
    if len(names) <= WHOLE or len(shown) == 1:
        return {}, names
    values = {name: {row[name] for row in shown} for name in names}
    common = {name: of.pop() for name, of in values.items() if len(of) == 1}
    rest = [name for name in names if name not in common]
    return common, [name for name in rest if name.partition(":")[0] not in _WIDE]


def ledger(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The rows of a ledger table as text. A quantity with published values is shown as `paper / ours`.

    In a table of memory the heading of the verdict names its columns, the "#" ones: Residual and Total have
    no verdict.
    """
    published = {name for name in HEADINGS for row in rows if row.get(f"{name}_paper") is not None}
    texts = []
    for row in rows:
        cells = {}
        for name, value in row.items():
            if name.endswith(("_paper", "_difference")) or name in ("verdict", "why", "source"):
                continue
            heading, digits = HEADINGS.get(name, (name.replace("_", " "), 0))
            ours = _number(value, digits) if name in HEADINGS else _whole(value)
            if name in published:
                cells[f"{heading}: paper / ours"] = f"{_plain(row[f'{name}_paper'])} / {ours}"
            else:
                cells[heading] = ours
        if any(row["verdict"] for row in rows):
            cells["verdict, # columns" if "pgs" in row else "verdict"] = _verdict(row)
        texts.append(cells)
    return texts


def grid(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of `simulated.grid_rows` as text."""
    return {
        "precision": row["precision"],
        "length": str(row["seq_len"]),
        "batch": str(row["batch_size"]),
        "peak, GB": _number(row["peak_gb"], 2),
        "largest part": row["largest"] or "–",
        f"{row['budget_gb']:g} GB": _verdict(row),
    }


def measured(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of `measurements.rows` as text."""
    if "model" not in row:
        return {"verdict": _verdict(row)}
    return {
        "model": row["model"],
        "strategy": row["strategy"] if row["m"] is None else f"{row['strategy']}, m = {row['m']}",
        "optimizer": row["optimizer"],
        "precision": row["precision"],
        "checkpointing": "yes" if row["checkpointing"] else "no",
        "batch × length": f"{row['batch_size']} × {row['seq_len']}",
        "device": row["device"],
        "predicted, MiB": _number(row["predicted_bytes"] / MIB, 2),
        "measured, MiB": _number(row["measured_bytes"] and row["measured_bytes"] / MIB, 2),
        "error, %": _number(row["error_percent"], 2),
        "verdict": _verdict(row),
    }


def speed(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of `speeds.rows` as text."""
    if "model" not in row:
        return {"verdict": _verdict(row)}
    low, high = _number(row["ratio_low"], 2), _number(row["ratio_high"], 2)
    name = row["name"].replace(":", ", ")  # a line may break between a strategy and its options
    return {
        "timing": str(row["timing"]),
        "model, batch × length": f"{row['model']}, {row['batch_size']} × {row['seq_len']}",
        "optimizer": row["optimizer"],
        "step of": name if row["m"] is None else f"{name}, m = {row['m']}",
        "over full (range)": f"{_number(row['ratio_to_full'], 2)} ({low}–{high})",
        "over limit": _number(row["ratio_to_limit"], 2),
        "over bare": _number(row["ratio_to_bare"], 2),
        "mean, ms": _number(row["mean_ms"], 1),
        "saved activations, MiB": _number(row["saved_activation_bytes"] / MIB, 1),
        "optimizer state, MiB": _number(row["state_bytes"] / MIB, 1),
        "sweeps": str(row["sweeps"]),
        "verdict": _verdict(row),
    }


def score(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of `compare.score_rows` as text."""
    spread = {"std": " ± {}", "ci": " (interval ± {})"}.get(row["spread_kind"] or "", "")
    paper = "–" if row["paper"] is None else f"{row['paper']}{spread.format(row['paper_spread'])}"
    difference = "–" if row["difference"] is None else f"{row['difference']:+.2f}"
    return {
        "model": row["model"],
        "method": row["method"],
        "column": row["column"],
        "published by": row["cites"],
        "published": paper,
        "ours, mean ± std (n)": _mean(row, 2),
        "difference": difference,
        "verdict": _verdict(row),
    }


def record(table: RecordTable, row: Mapping[str, Any]) -> dict[str, str]:
    """A row of `compare.record_rows` as text, with the quantities that `table` shows."""
    if "task" not in row:
        return {"verdict": _verdict(row)}
    units = {"ratio_peak": ("trainable ratio, peak", 4), "peak_mib": ("peak memory, MiB", 1)}
    units |= {"host_state_mib": ("state on the host, MiB", 1)}
    costs = {units[name][0]: _number(row[name], units[name][1]) for name in table.shows}
    names = {name: str(row[name] or "–") for name in ("task", "data", "model", "strategy")}
    score = f"{_mean(row, 4)} {row['metric'] or ''}".strip()
    return names | {"score, mean ± std (n)": score} | costs | {"verdict": _verdict(row)}


def _verdict(row: Mapping[str, Any]) -> str:
    if row["verdict"] is None:
        return "–"
    return f"{row['verdict']}: {row['why']}" if row.get("why") else str(row["verdict"])


def _mean(row: Mapping[str, Any], digits: int) -> str:
    if row["ours_mean"] is None:
        return "–"
    spread = "" if row["ours_std"] is None else f" ± {row['ours_std']:.{digits}f}"
    return f"{row['ours_mean']:.{digits}f}{spread} ({row['n']})"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:g}" if abs(value) < 1000 else f"{value:.2f}"


def _whole(value: Any) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
