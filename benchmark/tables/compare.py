"""Paper beside ours: the difference, the verdict and the rule behind it.

The rule for scores: *within* if |ours - paper| is at most the column's tolerance (1 point unless the table
says otherwise) or twice the joint spread sqrt(s² + p²), whichever is larger; s is our standard deviation over
seeds (ddof 1) and p the paper's where it printed one. Published single runs scatter as ours do, hence the
spread of runs and not of means. For closed forms: see `TOLERANCE`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark import summary
from benchmark.matrix import Cell
from benchmark.tables import definition
from benchmark.tables.definition import (
    Column,
    LedgerTable,
    Line,
    Quantity,
    RecordTable,
    Reference,
    ScoreTable,
)
from benchmark.tables.evidence import Evidence, State, scored_by

if TYPE_CHECKING:
    from benchmark.tables import simulated

# what a closed form gives; Residual and Total depend on batch and length, which the paper does not say
EXACT = ("reduction_percent", "trainable_params", "para", "gra", "sta", "pgs")
TOLERANCE = {"M": 0.01, "MB": 0.03, "GB": 0.01, "%": 0.01}
RELATIVE = 1e-6
ROUNDING = (
    1e-9  # a difference of just the tolerance is within it, whatever floats make of 57.8 - 56.8
)
LEDGER_RULES = {
    "trainable_parameters": "within: |difference| is at most 0.01 percentage points",
    "memory": (
        "within, of the # columns alone: |difference| is at most 0.01 million, 0.03 MB or 0.01 GB, or "
        "1e-6 of the printed value where that is more (the paper's 25705.04 MB is 0.024 MB above its own "
        "parameter count, and it carries that into the 1.5-fold and twofold of it)"
    ),
}


def rule(table: ScoreTable) -> str:
    """The rule for scores with the tolerances of `table`, in a sentence."""
    columns: dict[float, list[str]] = {}
    for name, column in table.columns.items():
        columns.setdefault(column.tolerance, []).append(name)
    one = len(columns) == 1
    tolerances = (
        f"{t:g}" if one else f"{t:g} ({', '.join(names)})" for t, names in columns.items()
    )
    return (
        f"within: |difference| is at most {' or '.join(tolerances)}, or 2·√(s² + p²) where that is more; "
        "s is our standard deviation over seeds, p the published one where one was printed"
    )


def ledger_rows(
    table: LedgerTable, models: Sequence[str], results: Path, *, group_size: int = 1
) -> list[dict[str, Any]]:
    """The closed form's rows, each published quantity `q` followed by `q_paper` and `q_difference`, and a
    verdict over the row's printed cells; None where nothing is published. Residual and Total are simulated,
    blank without a record in `results`, and a fault of the row where the record is of something else."""
    from benchmark.tables import closed_form, simulated

    mine = tuple(models) == table.models and group_size == 1  # nothing else is published
    printed = definition.published(table.reference) if table.reference and mine else ()
    if table.shows == "trainable_parameters":
        rows = closed_form.trainable_parameters(models, group_size=group_size)
        values = {("mean", "", ""): dict(zip(["reduction_percent"], printed, strict=False))}
        keys = [(row["model"], "", "") for row in rows]
        quantities = ["reduction_percent"]
    else:
        rows = []
        for model in models:
            settings = simulated.paper_settings(model, group_size=group_size)
            found = simulated.read(model, results)
            for row in closed_form.memory(model, group_size=group_size):
                place = row["optimizer"], row["precision"], row["method"]
                rows.append(row | _simulated(row, found.get(simulated.key(settings[place]))))
        values = {}
        for row in printed:
            key = row["optimizer"], row["precision"], row["method"]
            values.setdefault(key, {})[row["column"]] = row
        keys = [(row["optimizer"], row["precision"], row["method"]) for row in rows]
        quantities = ["trainable_params", "para", "gra", "sta", "pgs", "residual_states", "total"]
    return [
        _beside(row, quantities, values.get(key, {})) for row, key in zip(rows, keys, strict=True)
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
    standing, total = found.standing / 2**30, found.total / 2**30
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


def score_rows(table: ScoreTable, evidence: Evidence) -> list[dict[str, Any]]:
    """One row per published cell, and per cell of ours that has no published one."""
    published = definition.scores(table)
    places = list(_places(table, published))
    cells = {
        (line, name): evidence.cell(
            task=column.task, model=table.models[line.model], label=line.strategy
        )
        for line, name, column in places
        if line.strategy is not None
    }
    drawn_on = [cell for cell in cells.values() if cell is not None]
    mixture = evidence.mixture(drawn_on, real=table.data == "real")
    rows = []
    for line, name, column in places:
        paper = published.get((line.model, line.method, name)) if line.held else None
        cell = cells.get((line, name))
        ours = _ours(cell, line, column, evidence, mixture)
        shown = _compared(ours, paper, column)
        names = {"model": line.model, "method": line.method, "cites": line.cites}
        rows.append(names | {"column": name, "metric": column.metric} | shown)
    return rows


def _places(
    table: ScoreTable, published: Mapping[tuple[str, str, str], Reference]
) -> Iterator[tuple[Line, str, Column]]:
    for line in table.rows:
        for name, column in table.columns.items():
            if column.only is not None and line.method not in column.only:
                continue
            if not line.held or (line.model, line.method, name) in published:
                yield line, name, column


def _ours(
    cell: Cell | None, line: Line, column: Column, evidence: Evidence, mixture: State | None
) -> summary.Row | State:
    """Our cell over its seeds, or why there is none. Scores stay in the task's own unit."""
    if line.strategy is None:
        return State("cannot run here", line.why)
    if evidence.absent:
        return State("not run", evidence.absent)
    if cell is None:
        return State("not run", f"the matrix has no {line.strategy} on {column.task}")
    if state := evidence.state(cell):
        return state
    if mixture:
        return mixture
    try:
        records = [scored_by(one, column.metric) for one in evidence.of(cell)]
    except KeyError:
        return State("fault", f"its records have no score {column.metric!r}")
    return summary.rows([cell], records)[0]


def _compared(ours: summary.Row | State, paper: Reference | None, column: Column) -> dict[str, Any]:
    mean = std = difference = allowed = None
    n, verdict, why = 0, None, ""
    if isinstance(ours, State):
        verdict, why = ours.verdict, ours.why
    else:
        assert ours.mean is not None
        n, mean = ours.n, ours.mean * column.scale
        std = None if ours.std is None else ours.std * column.scale
        verdict = "no published value"
        if paper is not None:
            spread = paper.spread if paper.spread_kind == "std" else None
            difference = mean - paper.value
            allowed = max(column.tolerance, 2 * math.hypot(std or 0.0, spread or 0.0))
            verdict = "within" if abs(difference) <= allowed + ROUNDING else "outside"
    printed = dataclasses.asdict(paper) if paper else {}
    return {
        "paper": printed.get("value"),
        "paper_spread": printed.get("spread"),
        "spread_kind": printed.get("spread_kind") or None,
        "unit": printed.get("unit") or None,
        "ours_mean": mean,
        "ours_std": std,
        "n": n,
        "difference": difference,
        "allowed": allowed,
        "verdict": verdict,
        "why": why or None,
        "source": printed.get("source"),
        "note": "; ".join(filter(None, (printed.get("note"), column.note))) or None,
    }


def record_rows(table: RecordTable, evidence: Evidence) -> list[dict[str, Any]]:
    """One row per cell of the matrix, over its seeds; nothing is published for these."""
    if evidence.absent:
        return [{"verdict": "not run", "why": evidence.absent}]
    mixture = evidence.mixture(evidence.cells, real=table.data == "real")
    states = [evidence.state(cell) for cell in evidence.cells]
    states = [mixture if state is None else state for state in states]
    good = [cell for cell, state in zip(evidence.cells, states, strict=True) if state is None]
    found = summary.rows(good, [one for cell in good for one in evidence.of(cell)])
    by_place = {(row.task, row.model, row.label): row for row in found}
    rows = []
    for cell, state in zip(evidence.cells, states, strict=True):
        row = by_place.get((cell.task, cell.model, cell.label))
        base = by_place.get((cell.task, cell.model, table.baseline or ""))
        quantities = {name: _quantity(name, row, base) for name in table.shows}
        rows.append(
            {"task": cell.task, "model": cell.model, "strategy": cell.label}
            | {"data": row.data_source if row else None, "metric": row.metric if row else None}
            | {"ours_mean": row.mean if row else None, "ours_std": row.std if row else None}
            | {"n": row.n if row else 0}
            | quantities
            | {"memory": row.memory_kind if row and "peak_mib" in table.shows else None}
            | {"verdict": state.verdict if state else "no published value"}
            | {"why": state.why if state else None}
        )
    return rows


def _quantity(name: Quantity, row: summary.Row | None, base: summary.Row | None) -> Any:
    """One cost of `row`, None where it was not measured; bytes in MiB."""
    if row is None:
        return None
    if name == "step_ratio":
        return row.step_ms / base.step_ms if row.step_ms and base and base.step_ms else None
    if name == "peak_mib":
        return None if row.peak_bytes is None else row.peak_bytes / 2**20
    if name == "host_state_mib":
        return None if row.host_state_bytes is None else row.host_state_bytes / 2**20
    return row.ratio_peak if name == "ratio_peak" else row.step_ms
