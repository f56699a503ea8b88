"""Closed forms and simulated Totals beside the paper's printed ones.

Each number of a closed form has a verdict. A Total depends on batch and length, which the paper does not say:
it has none, and `summary` counts those that come near.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.sizes import GIB
from benchmark.tables import definition
from benchmark.tables.definition import LedgerTable

if TYPE_CHECKING:
    from benchmark.tables import simulated

# what a closed form gives
EXACT = ("reduction_percent", "trainable_params", "para", "gra", "sta", "pgs")
TOLERANCE = {"M": 0.01, "MB": 0.03, "GB": 0.01, "%": 0.01}
RELATIVE = 1e-6
NEAR_PERCENT = 2.0
"""By how much a simulated Total may be off to be counted as near the printed one."""
RULES = {
    "trainable_parameters": "within: |difference| is at most 0.01 percentage points",
    "memory": (
        "within, of the # columns alone: |difference| is at most 0.01 million, 0.03 MB or 0.01 GB, or "
        "1e-6 of the printed value where that is more (the paper's 25705.04 MB is 0.024 MB above its own "
        "parameter count, and it carries that into the 1.5-fold and twofold of it)"
    ),
}
SIMULATED = (
    "Our Residual and Total are simulated at batch 8 and length 512 with sdpa attention, eager for GPT-Neo "
    "(--simulate); no GPU has confirmed them. The paper does not say at which it measured, so they have no "
    "verdict. Residual is Total less #PGS, so it is small where the peak lies in the optimizer's step, when "
    "the activations are gone."
)


def summary(rows: Iterable[Mapping[str, Any]]) -> str:
    """What the rows of a table of memory come to: verdicts of the closed form, then how many simulated Totals
    are near the printed ones and which is farthest off; "" where nothing is published."""
    rows = list(rows)
    verdicts = Counter(str(row["verdict"]).partition(":")[0] for row in rows if row["verdict"])
    if not verdicts:
        return ""
    counted = ", ".join(f"{count} {name}" for name, count in verdicts.items())
    return f"closed form: {counted}; simulated Total: {_totals(rows)}"


def _totals(rows: Sequence[Mapping[str, Any]]) -> str:
    off = {
        index: 100 * row["total_difference"] / row["total_paper"]
        for index, row in enumerate(rows)
        if row["total_difference"] is not None
    }
    if not off:
        return "none on record"
    near = sum(abs(percent) <= NEAR_PERCENT for percent in off.values())
    farthest = max(off, key=lambda index: abs(off[index]))
    row, percent = rows[farthest], off[farthest]
    place = f"{row['method']} with {row['optimizer']} in {row['precision']}"
    side = "low" if percent < 0 else "high"
    worst = f"{row['total']:.2f} GB, {row['total_paper']:.2f} printed"
    return (
        f"{near} of {len(off)} within {NEAR_PERCENT:g} %, "
        f"the worst {abs(percent):.0f} % too {side} ({place}: {worst})"
    )


def rows(
    table: LedgerTable, models: Sequence[str], results: Path, *, group_size: int = 1
) -> list[dict[str, Any]]:
    """The closed form's rows, each published quantity `q` followed by `q_paper` and `q_difference`, and a
    verdict over the row's printed cells; None where nothing is published. Residual and Total are simulated,
    blank without a record in `results`, and a fault of the row where the record is of something else."""
    from benchmark.tables import closed_form, simulated

    mine = tuple(models) == table.models and group_size == 1  # nothing else is published
    printed = definition.published(table.reference) if table.reference and mine else ()
    if table.shows == "trainable_parameters":
        ours = closed_form.trainable_parameters(models, group_size=group_size)
        values = {("mean", "", ""): dict(zip(["reduction_percent"], printed, strict=False))}
        keys = [(row["model"], "", "") for row in ours]
        quantities = ["reduction_percent"]
    else:
        ours = []
        for model in models:
            settings = simulated.paper_settings(model, group_size=group_size)
            found = simulated.read(model, results)
            for row in closed_form.memory(model, group_size=group_size):
                place = row["optimizer"], row["precision"], row["method"]
                ours.append(row | _simulated(row, found.get(simulated.key(settings[place]))))
        values = {}
        for row in printed:
            key = row["optimizer"], row["precision"], row["method"]
            values.setdefault(key, {})[row["column"]] = row
        keys = [(row["optimizer"], row["precision"], row["method"]) for row in ours]
        quantities = ["trainable_params", "para", "gra", "sta", "pgs", "residual_states", "total"]
    return [
        _beside(row, quantities, values.get(key, {})) for row, key in zip(ours, keys, strict=True)
    ]


def _simulated(row: Mapping[str, Any], found: simulated.Found | None) -> dict[str, Any]:
    """Total and, as the paper has it, the Residual that is left of it beside #PGS, in GB.

    A fault where the simulated step held less than the weights or more than #PGS, so is one of something
    else. Less than #PGS is none: a group other than the largest may have the highest peak.
    """
    blank = {"residual_states": None, "total": None, "verdict": None, "why": None}
    if found is None:
        return blank
    pgs, weights = row["pgs"], row["para"] / 1024
    slack = max(0.01, 1e-3 * pgs)  # the allocator rounds up to 512 bytes
    standing, total = found.standing / GIB, found.total / GIB
    if not weights - slack <= standing <= pgs + slack:
        why = f"the simulation on record held {standing:.2f} GB before the update, not {pgs:.2f}"
        return blank | {"verdict": "fault", "why": why}
    return blank | {"residual_states": total - pgs, "total": total}


def _beside(
    row: Mapping[str, Any], quantities: Sequence[str], printed: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """`row` with the paper's value and the difference behind each quantity."""
    full: dict[str, Any] = {}
    outside, compared = [], 0
    for name, value in row.items():
        full[name] = value
        if name not in quantities:
            continue
        paper = float(printed[name]["value"]) if name in printed else None
        difference = None if paper is None or value is None else value - paper
        full |= {f"{name}_paper": paper, f"{name}_difference": difference}
        if paper is None or difference is None or name not in EXACT:
            continue
        compared += 1
        allowed = max(TOLERANCE[printed[name]["unit"]], RELATIVE * abs(paper))
        if abs(difference) > allowed:
            outside.append(name)
    verdict = f"outside: {', '.join(outside)}" if outside else "within" if compared else None
    sources = dict.fromkeys(entry["source"] for entry in printed.values())
    verdict = row.get("verdict") or verdict  # a fault goes before
    return full | {"verdict": verdict, "source": "; ".join(sources) or None}
