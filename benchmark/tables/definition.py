"""What a table's YAML may say, strictly, and the published values it stands on.

Add a table: one `<id>.yaml` here and, where values are published, its rows in reference/.
"""

import csv
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from benchmark.errors import UserError, nearest
from benchmark.records.spec import Strict

HERE = Path(__file__).parent


class Common(Strict):
    """`notes` are said beside the table."""

    id: str
    title: str
    notes: tuple[str, ...] = ()


class LedgerTable(Common):
    """Closed form, from the shapes of `models` alone; none named: the user names one with --model."""

    kind: Literal["ledger"]
    shows: Literal["trainable_parameters", "memory"]
    models: tuple[str, ...]
    reference: str | None = None


class SimulatedTable(Common):
    """Simulated peaks of one method over a grid, each against a budget in GB (2^30 bytes). Of the budget the
    card itself may take up to `margin_gb`, so a peak within it is inconclusive."""

    kind: Literal["simulated"]
    model: str
    strategy: str
    optimizer: str
    attention: str
    precisions: tuple[str, ...]
    seq_lens: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    budget_gb: Annotated[float, Field(gt=0)]
    margin_gb: Annotated[float, Field(ge=0)]
    reference: str


class MeasuredTable(Common):
    """Filled by the measurements in results/memory."""

    kind: Literal["measured"]


class SpeedTable(Common):
    """Filled by what `hift-bench speed --save` has put in results/speed."""

    kind: Literal["speed"]


class FromRecords(Common):
    """Filled by the records of `matrix`, a name in benchmark/matrices. `data: real` refuses twins;
    `selection` says which checkpoint is scored, on what."""

    matrix: str
    data: Literal["real", "any"] = "real"
    selection: str


class Column(Strict):
    """A published column: the task and the score that fill it here. `scale` turns ours into the published
    unit; `only` names the methods it exists for."""

    task: str
    metric: str
    scale: Annotated[float, Field(gt=0)] = 100.0
    tolerance: Annotated[float, Field(ge=0)] = 1.0
    only: tuple[str, ...] | None = None
    note: str = ""


class Line(Strict):
    """A published row: `cites` is the paper its values are from; `held: false` where they are not held.

    `strategy` is the matrix's label for our run of it; without one, `why` says why there is none.
    """

    model: str
    method: str
    cites: str
    held: bool = True
    strategy: str | None = None
    why: str = ""


class ScoreTable(FromRecords):
    """Published scores, cell by cell, beside ours. `models`: the printed name -> the matrix's.

    `columns_are`: the field of the reference that a column's name stands for.
    """

    kind: Literal["scores"]
    reference: str
    columns_are: Literal["task", "metric"] = "task"
    models: dict[str, str]
    columns: dict[str, Column]
    rows: tuple[Line, ...]


Quantity = Literal["ratio_peak", "peak_mib", "host_state_mib"]


class RecordTable(FromRecords):
    """Ours only: one row per cell of the matrix. Step times are not among what it shows: runs of a matrix
    share their machine with whatever else it does."""

    kind: Literal["records"]
    shows: tuple[Quantity, ...]


Table = LedgerTable | SimulatedTable | MeasuredTable | SpeedTable | ScoreTable | RecordTable
KINDS: dict[str, type[Table]] = {
    "ledger": LedgerTable,
    "simulated": SimulatedTable,
    "measured": MeasuredTable,
    "speed": SpeedTable,
    "scores": ScoreTable,
    "records": RecordTable,
}


@dataclass(frozen=True)
class Reference:
    """One published value; `spread` is the printed one, of which `spread_kind` says what it is."""

    value: float
    unit: str
    source: str
    note: str
    spread: float | None = None
    spread_kind: str = ""


def names() -> tuple[str, ...]:
    """The id of every table, in the order of the paper: closed forms, scores, our own."""
    tables = [load(path.stem) for path in sorted(HERE.glob("*.yaml"))]
    return tuple(table.id for table in sorted(tables, key=lambda t: list(KINDS).index(t.kind)))


@cache
def load(name: str) -> Table:
    """The table of that id. Raises UserError for an unknown one, and for a file that is off schema."""
    known = [path.stem for path in HERE.glob("*.yaml")]
    if name not in known:
        raise UserError(f"no table {name!r}{nearest(name, known)}")
    return read(HERE / f"{name}.yaml")


def read(path: Path) -> Table:
    """A table's file, checked. Raises UserError naming the file and the key."""
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind not in KINDS:
        raise UserError(f"{path}: kind: {kind!r} is unknown{nearest(kind, KINDS)}")
    try:
        table = KINDS[kind].model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {where}: {first['msg']}") from None
    if table.id != path.stem:
        raise UserError(f"{path}: id: {table.id!r} is not the file's name")
    return table


@cache
def published(file: str) -> tuple[dict[str, str], ...]:
    """The rows of reference/`file`: table_id, model, task, metric, method, optimizer, precision, column,
    value, unit, source, note. An empty value stays empty and its note says why."""
    with open(HERE / "reference" / file, encoding="utf-8", newline="") as opened:
        return tuple(csv.DictReader(opened))


def scores(table: ScoreTable) -> dict[tuple[str, str, str], Reference]:
    """(model, method, column) -> the published score, with the std or confidence interval printed with it."""
    found: dict[tuple[str, str, str], Reference] = {}
    spreads: dict[tuple[str, str, str], tuple[float, str]] = {}
    for row in published(table.reference):
        key = row["model"], row["method"], row[table.columns_are]
        if row["column"] in ("score", "mean") and row["value"]:
            value = float(row["value"])
            found[key] = Reference(value, row["unit"], row["source"], row["note"])
        elif row["column"] in ("std", "ci") and row["value"]:
            spreads[key] = float(row["value"]), row["column"]
    return {
        key: replace(reference, spread=spreads[key][0], spread_kind=spreads[key][1])
        if key in spreads
        else reference
        for key, reference in found.items()
    }
