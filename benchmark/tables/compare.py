"""Rows of the score tables, our scores beside the published ones; and rows of tables with ours alone.

The allowed difference is the tolerance of the column (1 point by default) or twice the joint spread
sqrt(s² + p²), whichever is larger. s is our standard deviation over seeds (ddof 1), p the published one. The
spread is that of single runs, not of their mean, since the published value may be a single run.

- outside: the difference is larger than the allowed one. - within: it is not, and the allowed difference is
at most `CAP` tolerances. - inconclusive: the allowed difference is larger than that, or there is one run,
whose spread is unknown. Noise therefore never leads to *within*.
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
"""Slack for rounding: a difference of exactly the tolerance, such as 57.8 - 56.8, is within it."""
CAP = 2
"""The largest allowed difference for the verdict *within*, in tolerances of the column."""


def rule(table: ScoreTable) -> str:
    """The rule behind the verdicts of `table`, in words, with its tolerances."""
    return (
        f"The allowed difference is {_per_column(table, 1)}, or 2·√(s² + p²) if that is larger; s is our "
        "standard deviation over seeds, p the published one, if one was published. outside: |difference| is "
        "larger than allowed. within: it is not, and the allowed difference is at most "
        f"{_per_column(table, CAP)}. inconclusive: the allowed difference is larger than that, or there is "
        "one seed, whose spread is not known. Runs that draw nothing at random have no spread."
    )


def _per_column(table: ScoreTable, times: float) -> str:
    """`times` the tolerance, in words. If tolerances differ, each is followed by the names of its columns."""
    columns: dict[float, list[str]] = {}
    for name, column in table.columns.items():
        columns.setdefault(column.tolerance, []).append(name)
    same = len(columns) == 1
    amounts = (
        f"{times * t:g}" if same else f"{times * t:g} ({', '.join(names)})"
        for t, names in columns.items()
    )
    return " or ".join(amounts)


def score_rows(table: ScoreTable, evidence: Evidence) -> list[dict[str, Any]]:
    """One row per cell of the table: published cells, and ours without a published value."""
    published = definition.scores(table)
    places = list(_places(table, published))
    cells = {
        (line, name): evidence.cell(
            task=column.task, model=table.models[line.model], label=line.strategy
        )
        for line, name, column in places
        if line.strategy is not None
    }
    used = [cell for cell in cells.values() if cell is not None]
    mixture = evidence.mixture(used, real=table.data == "real")
    rows = []
    for line, name, column in places:
        paper = published.get((line.model, line.method, name)) if line.available else None
        cell = cells.get((line, name))
        ours = _ours(cell, line, column, evidence, mixture)
        compared = _compared(ours, paper, column, random=cell is not None and _is_random(cell))
        names = {"model": line.model, "method": line.method, "cites": line.cites}
        rows.append(names | {"column": name, "metric": column.metric} | compared)
    return rows


def _places(
    table: ScoreTable, published: Mapping[tuple[str, str, str], Reference]
) -> Iterator[tuple[Line, str, Column]]:
    """(line, column name, column) of each cell of the table, row by row."""
    for line in table.rows:
        for name, column in table.columns.items():
            if column.only is not None and line.method not in column.only:
                continue
            if not line.available or (line.model, line.method, name) in published:
                yield line, name, column


def _ours(
    cell: Cell | None, line: Line, column: Column, evidence: Evidence, mixture: State | None
) -> summary.Row | State:
    """Our cell, summarised over its seeds, or the reason that it has no number. Scores are in the task's
    unit."""
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


def _is_random(cell: Cell) -> bool:
    """Whether the cell's score depends on the seed: it trains, or it draws demonstrations."""
    trains = cell.search is not None or cell.settings.get("lr") is not None
    return trains or bool(cell.settings.get("demonstrations"))


def _compared(
    ours: summary.Row | State, paper: Reference | None, column: Column, *, random: bool
) -> dict[str, Any]:
    """The cell's numbers and verdict. random: whether the score depends on the seed."""
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
            verdict, why = _verdict(difference, allowed, column, one_seed=random and n == 1)
    published = dataclasses.asdict(paper) if paper else {}
    return {
        "paper": published.get("value"),
        "paper_spread": published.get("spread"),
        "spread_kind": published.get("spread_kind") or None,
        "unit": published.get("unit") or None,
        "ours_mean": mean,
        "ours_std": std,
        "n": n,
        "difference": difference,
        "allowed": allowed,
        "verdict": verdict,
        "why": why or None,
        "source": published.get("source"),
        "note": "; ".join(filter(None, (published.get("note"), column.note))) or None,
    }


def _verdict(
    difference: float, allowed: float, column: Column, *, one_seed: bool
) -> tuple[str, str]:
    """The verdict within, outside or inconclusive, and the reason of the last."""
    cap = CAP * column.tolerance
    if one_seed:
        return "inconclusive", "one seed, whose spread is not known"
    if abs(difference) > allowed + ROUNDING:
        return "outside", ""
    if allowed > cap + ROUNDING:
        return "inconclusive", f"the spread of runs would allow {allowed:.2f}, more than {cap:g}"
    return "within", ""


def record_rows(table: RecordTable, evidence: Evidence) -> list[dict[str, Any]]:
    """One row per cell of the matrix, summarised over its seeds. These have no published values."""
    if evidence.absent:
        return [{"verdict": "not run", "why": evidence.absent}]
    mixture = evidence.mixture(evidence.cells, real=table.data == "real")
    states = [evidence.state(cell) for cell in evidence.cells]
    states = [mixture if state is None else state for state in states]
    good = [cell for cell, state in zip(evidence.cells, states, strict=True) if state is None]
    summaries = summary.rows(good, [one for cell in good for one in evidence.of(cell)])
    by_place = {(row.task, row.model, row.label): row for row in summaries}
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
    """One cost of `row`: a ratio, or MiB. None if it was not measured."""
    if row is None or name == "ratio_peak":
        return None if row is None else row.ratio_peak
    size = row.peak_bytes if name == "peak_mib" else row.host_state_bytes
    return None if size is None else size / MIB
