"""Rows of the ledger tables: closed forms and simulated Totals beside the paper's values.

Every closed form has a verdict. A Total has none, because it depends on batch size and length, which the
paper does not give; `summary` counts the Totals that are near the paper's.
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

# the quantities with a closed form
EXACT = ("reduction_percent", "trainable_params", "para", "gra", "sta", "pgs")
TOLERANCE = {"M": 0.01, "MB": 0.03, "GB": 0.01, "%": 0.01}
RELATIVE = 1e-6
NEAR_PERCENT = 2.0
"""The largest error of a simulated Total that counts as near the paper's, in percent."""
RULES = {
    "trainable_parameters": "within: |difference| is at most 0.01 percentage points",
    "memory": (
        "within (# columns only): |difference| is at most 0.01 million, 0.03 MB or 0.01 GB, or 1e-6 of the "
        "published value if that is larger. The paper's 25705.04 MB is 0.024 MB above its own parameter "
        "count, and so are 1.5 and 2 times that value in proportion."
    ),
}
SIMULATED = (
    "Our Residual and Total are simulated (--simulate) at batch size 8 and length 512, with sdpa attention, "
    "or eager for GPT-Neo. No GPU has confirmed them. The paper does not give the batch size and length of "
    "its measurements, so Residual and Total have no verdict. Residual is Total minus #PGS. It is small if "
    "the peak is in the optimizer's step, when the activations are already freed."
)


def summary(rows: Iterable[Mapping[str, Any]]) -> str:
    """A sentence about a table of memory: the verdicts of its closed forms, how many simulated Totals are
    near the published ones, and which has the largest error. It is "" if nothing is published."""
    rows = list(rows)
    verdicts = Counter(str(row["verdict"]).partition(":")[0] for row in rows if row["verdict"])
    if not verdicts:
        return ""
    counted = ", ".join(f"{count} {name}" for name, count in verdicts.items())
    return f"closed form: {counted}; simulated Total: {_totals(rows)}"


def _totals(rows: Sequence[Mapping[str, Any]]) -> str:
    errors = {
        index: 100 * row["total_difference"] / row["total_paper"]
        for index, row in enumerate(rows)
        if row["total_difference"] is not None
    }
    if not errors:
        return "none on record"
    near = sum(abs(percent) <= NEAR_PERCENT for percent in errors.values())
    worst = max(errors, key=lambda index: abs(errors[index]))
    row, percent = rows[worst], errors[worst]
    place = f"{row['method']} with {row['optimizer']} in {row['precision']}"
    side = "low" if percent < 0 else "high"
    totals = f"{row['total']:.2f} GB, {row['total_paper']:.2f} printed"
    return (
        f"{near} of {len(errors)} within {NEAR_PERCENT:g} %, "
        f"the worst {abs(percent):.0f} % too {side} ({place}: {totals})"
    )


def rows(
    table: LedgerTable, models: Sequence[str], results: Path, *, group_size: int = 1
) -> list[dict[str, Any]]:
    """The rows of a ledger table.

    Each quantity `q` is followed by `q_paper` and `q_difference`, which are None if nothing is published, and
    each row ends with a verdict over its published cells. Residual and Total are simulated. They are None
    without a record in `results`; a record that cannot be of this step makes the verdict a fault.
    """
    from benchmark.tables import closed_form, simulated

    in_paper = tuple(models) == table.models and group_size == 1
    published = definition.published(table.reference) if table.reference and in_paper else ()
    if table.shows == "trainable_parameters":
        ours = closed_form.trainable_parameters(models, group_size=group_size)
        values = {("mean", "", ""): dict(zip(["reduction_percent"], published, strict=False))}
        keys = [(row["model"], "", "") for row in ours]
        quantities = ["reduction_percent"]
    else:
        ours = []
        for model in models:
            settings = simulated.paper_settings(model, group_size=group_size)
            peaks = simulated.read(model, results)
            for row in closed_form.memory(model, group_size=group_size):
                place = row["optimizer"], row["precision"], row["method"]
                ours.append(row | _simulated(row, peaks.get(simulated.key(settings[place]))))
        values = {}
        for row in published:
            key = row["optimizer"], row["precision"], row["method"]
            values.setdefault(key, {})[row["column"]] = row
        keys = [(row["optimizer"], row["precision"], row["method"]) for row in ours]
        quantities = ["trainable_params", "para", "gra", "sta", "pgs", "residual_states", "total"]
    return [
        _beside(row, quantities, values.get(key, {})) for row, key in zip(ours, keys, strict=True)
    ]


def _simulated(row: Mapping[str, Any], peak: simulated.Found | None) -> dict[str, Any]:
    """Total and Residual, which is Total minus #PGS as in the paper, in GB.

    `peak.standing` must be between the weights and #PGS, or the simulation is of another step: a fault. It
    may be below #PGS, since the highest peak may be that of a group other than the largest.
    """
    blank = {"residual_states": None, "total": None, "verdict": None, "why": None}
    if peak is None:
        return blank
    pgs, weights = row["pgs"], row["para"] / 1024
    slack = max(0.01, 1e-3 * pgs)  # the allocator rounds up to 512 bytes
    standing, total = peak.standing / GIB, peak.total / GIB
    if not weights - slack <= standing <= pgs + slack:
        why = f"the simulation on record held {standing:.2f} GB before the update, not {pgs:.2f}"
        return blank | {"verdict": "fault", "why": why}
    return blank | {"residual_states": total - pgs, "total": total}


def _beside(
    row: Mapping[str, Any], quantities: Sequence[str], published: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """`row` with the paper's value and the difference after each quantity, and the verdict."""
    full: dict[str, Any] = {}
    outside, compared = [], 0
    for name, value in row.items():
        full[name] = value
        if name not in quantities:
            continue
        paper = float(published[name]["value"]) if name in published else None
        difference = None if paper is None or value is None else value - paper
        full |= {f"{name}_paper": paper, f"{name}_difference": difference}
        if paper is None or difference is None or name not in EXACT:
            continue
        compared += 1
        allowed = max(TOLERANCE[published[name]["unit"]], RELATIVE * abs(paper))
        if abs(difference) > allowed:
            outside.append(name)
    verdict = f"outside: {', '.join(outside)}" if outside else "within" if compared else None
    sources = dict.fromkeys(entry["source"] for entry in published.values())
    verdict = row.get("verdict") or verdict  # a fault of the simulation replaces it
    return full | {"verdict": verdict, "source": "; ".join(sources) or None}
