"""The schema of a table's YAML, and the published values.

A new table is one `<id>.yaml` here, with its published values, if any, as rows of a file in reference/.
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
    """Keys of every table. id: the name of its file. notes: paragraphs shown with the table."""

    id: str
    title: str
    notes: tuple[str, ...] = ()


class LedgerTable(Common):
    """Closed forms from the shapes of `models`. If there are none, the user names one with --model.

    reference: the file of published values.
    """

    kind: Literal["ledger"]
    shows: Literal["trainable_parameters", "memory"]
    models: tuple[str, ...]
    reference: str | None = None


class SimulatedTable(Common):
    """Simulated peaks of one strategy over a grid of precisions, lengths and batch sizes, compared with a
    budget.

    budget_gb, margin_gb: in GB of 2^30 bytes. The device itself may take up to `margin_gb` of the budget, so
    a peak that comes this close to the budget is inconclusive.
    """

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
    """Rows from the measurements in results/memory."""

    kind: Literal["measured"]


class SpeedTable(Common):
    """Rows from the timings in results/speed, which `hift-bench speed --save` writes."""

    kind: Literal["speed"]


class FromRecords(Common):
    """Rows from the records of `matrix`, a name in benchmark/matrices.

    data: "real" refuses records of twins. selection: which checkpoint is scored, and on which rows, in words.
    """

    matrix: str
    data: Literal["real", "any"] = "real"
    selection: str


class Column(Strict):
    """A published column, and the task and metric of our score for it.

    scale: the factor from our unit to the published one. tolerance: the allowed difference, in the published
    unit. only: the methods that have this column; None for all.
    """

    task: str
    metric: str
    scale: Annotated[float, Field(gt=0)] = 100.0
    tolerance: Annotated[float, Field(ge=0)] = 1.0
    only: tuple[str, ...] | None = None
    note: str = ""


class Line(Strict):
    """A published row.

    cites: the paper of its values. available: whether reference/ has them. strategy: the label of our runs in
    the matrix. why: the reason that there are none.
    """

    model: str
    method: str
    cites: str
    available: bool = True
    strategy: str | None = None
    why: str = ""


class ScoreTable(FromRecords):
    """Published scores beside ours.

    reference: the file of published values. columns_are: the field of that file with the names of the
    columns. models: published name -> name in the matrix.
    """

    kind: Literal["scores"]
    reference: str
    columns_are: Literal["task", "metric"] = "task"
    models: dict[str, str]
    columns: dict[str, Column]
    rows: tuple[Line, ...]


Quantity = Literal["ratio_peak", "peak_mib", "host_state_mib"]


class RecordTable(FromRecords):
    """Our values alone, one row per cell of the matrix.

    It has no step times, since other programs may run on the machine during a matrix.
    """

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
    """One published value. spread: its published spread, if any. spread_kind: "std" or "ci" (confidence
    interval)."""

    value: float
    unit: str
    source: str
    note: str
    spread: float | None = None
    spread_kind: str = ""


def names() -> tuple[str, ...]:
    """The id of every table, ordered by kind as in KINDS."""
    tables = [load(path.stem) for path in sorted(HERE.glob("*.yaml"))]
    return tuple(table.id for table in sorted(tables, key=lambda t: list(KINDS).index(t.kind)))


@cache
def load(name: str) -> Table:
    """The table with this id. Raises UserError for an unknown id, and for a file that breaks the schema."""
    known = [path.stem for path in HERE.glob("*.yaml")]
    if name not in known:
        raise UserError(f"no table {name!r}{nearest(name, known)}")
    return read(HERE / f"{name}.yaml")


def read(path: Path) -> Table:
    """Read and check a table's file. Raises UserError that names the file and the key."""
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
    """(model, method, column) -> the published score, with its standard deviation or confidence interval."""
    values: dict[tuple[str, str, str], Reference] = {}
    spreads: dict[tuple[str, str, str], tuple[float, str]] = {}
    for row in published(table.reference):
        key = row["model"], row["method"], row[table.columns_are]
        if row["column"] in ("score", "mean") and row["value"]:
            value = float(row["value"])
            values[key] = Reference(value, row["unit"], row["source"], row["note"])
        elif row["column"] in ("std", "ci") and row["value"]:
            spreads[key] = float(row["value"]), row["column"]
    return {
        key: replace(reference, spread=spreads[key][0], spread_kind=spreads[key][1])
        if key in spreads
        else reference
        for key, reference in values.items()
    }
