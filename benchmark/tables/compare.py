"""Our scores beside the paper's: the difference, the verdict and the rule behind it; and our own tables.

Allowed is the column's tolerance (1 point unless the table says otherwise) or twice the joint spread
sqrt(s² + p²), whichever is larger; s is our standard deviation over seeds (ddof 1) and p the paper's where it
printed one. Published single runs scatter as ours do, hence the spread of runs and not of means.

*outside*: the difference is more than what is allowed. *within*: it is not, and allowed is at most `CAP`
tolerances. *inconclusive*: the runs scatter so much that more than that is allowed, or there is one run alone
whose scatter nobody knows. So noise never earns a *within*.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from benchmark.analysis import summary
from benchmark.matrices.matrix import Cell
from benchmark.sizes import MIB
from benchmark.tables import definition
from benchmark.tables.definition import Column, Line, Quantity, RecordTable, Reference, ScoreTable
from benchmark.tables.evidence import Evidence, State, scored_by

ROUNDING = 1e-9
"""A difference of just the tolerance is within it, whatever floats make of 57.8 - 56.8."""
CAP = 2
"""How many times a column's tolerance may at most be allowed for a verdict of *within*."""


def rule(table: ScoreTable) -> str:
    """The rule for scores with the tolerances and caps of `table`, in words."""
    return (
        f"Allowed are {_per_column(table, 1)}, or 2·√(s² + p²) where that is more; s is our standard "
        "deviation over seeds, p the published one where one was printed. outside: |difference| is more than "
        f"allowed. within: it is not, and allowed are at most {_per_column(table, CAP)}. inconclusive: more "
        "than that are allowed, or there is one seed, whose spread is not known; runs that draw nothing at "
        "random have none."
    )


def _per_column(table: ScoreTable, times: float) -> str:
    """`times` the tolerance, with the names of its columns where they differ."""
    columns: dict[float, list[str]] = {}
    for name, column in table.columns.items():
        columns.setdefault(column.tolerance, []).append(name)
    one = len(columns) == 1
    each = (
        f"{times * t:g}" if one else f"{times * t:g} ({', '.join(names)})"
        for t, names in columns.items()
    )
    return " or ".join(each)


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
        shown = _compared(ours, paper, column, drawn=cell is not None and _drawn(cell))
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


def _drawn(cell: Cell) -> bool:
    """Whether its seed decides anything: the batches of a training, or which demonstrations are shown."""
    trains = cell.search is not None or cell.settings.get("lr") is not None
    return trains or bool(cell.settings.get("demonstrations"))


def _compared(
    ours: summary.Row | State, paper: Reference | None, column: Column, *, drawn: bool
) -> dict[str, Any]:
    """The cell's numbers and verdict; `drawn`: another seed would have given another score."""
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
            verdict, why = _verdict(difference, allowed, column, alone=drawn and n == 1)
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


def _verdict(difference: float, allowed: float, column: Column, *, alone: bool) -> tuple[str, str]:
    """within, outside or inconclusive, and why in the last case."""
    cap = CAP * column.tolerance
    if alone:
        return "inconclusive", "one seed, whose spread is not known"
    if abs(difference) > allowed + ROUNDING:
        return "outside", ""
    if allowed > cap + ROUNDING:
        return "inconclusive", f"the spread of runs would allow {allowed:.2f}, more than {cap:g}"
    return "within", ""


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
        quantities = {name: _quantity(name, row) for name in table.shows}
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


def _quantity(name: Quantity, row: summary.Row | None) -> float | None:
    """One cost of `row`, None where it was not measured; bytes in MiB."""
    if row is None or name == "ratio_peak":
        return None if row is None else row.ratio_peak
    size = row.peak_bytes if name == "peak_mib" else row.host_state_bytes
    return None if size is None else size / MIB
