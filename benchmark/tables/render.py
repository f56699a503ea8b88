"""A table as unrounded rows for programs and as rounded text for people, in each format.

All text from a record or a YAML is escaped, by Jinja2's autoescape in HTML and by `tex` in LaTeX. Equal
records give equal bytes, because reports/paper is committed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.console import as_csv, as_markdown, escape_markdown
from benchmark.errors import UserError
from benchmark.files import write_text
from benchmark.report.page import environment
from benchmark.tables import cells, compare, definition, evidence, ledger, simulated, speeds
from benchmark.tables.definition import (
    LedgerTable,
    MeasuredTable,
    ScoreTable,
    SimulatedTable,
    SpeedTable,
    Table,
)

if TYPE_CHECKING:
    from benchmark.memory.setting import Setting

Rows = list[dict[str, Any]]
TEMPLATES = Path(__file__).parent / "templates"
FORMATS = ("md", "csv", "json", "tex", "html")
_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "√": r"$\surd$",
    "²": r"$^2$",
    "≤": r"$\le$",
    "†": r"$\dagger$",
    "–": "--",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


@dataclass(frozen=True)
class Rendered:
    """A table with its numbers.

    rows: unrounded, for csv and json. shown: the rows as text, rounded. notes: paragraphs shown with the
    table. notices: those of the notes that are about the records. summary: a sentence for the index in place
    of the count of verdicts; "" for the count.
    """

    table: Table
    rows: Rows
    shown: list[dict[str, str]]
    notes: tuple[str, ...]
    notices: tuple[str, ...] = ()
    summary: str = ""

    @property
    def verdicts(self) -> str:
        """The summary; without one, the count of each verdict."""
        counts = Counter(
            str(row["verdict"]).partition(":")[0] for row in self.rows if row["verdict"]
        )
        counted = ", ".join(f"{count} {name}" for name, count in counts.items())
        return self.summary or counted or "no published value"

    @property
    def filled_by(self) -> str:
        """The source of the numbers (`filled_by`)."""
        return filled_by(self.table)

    def text(self, format: str) -> str:
        """The whole table in md, csv, json, tex or html."""
        if format == "json":
            return json.dumps(self.rows, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        if format == "csv":
            return as_csv(self.rows)
        if format == "md":
            notes = "".join(f"{escape_markdown(note)}\n\n" for note in self.notes)
            title = escape_markdown(self.table.title)
            return f"# {title}\n\n{notes}{as_markdown(self.shown)}"
        if format == "tex":
            return _longtable(self)
        return environment(TEMPLATES, html=True).get_template("table.html.j2").render(page=self)


def render(
    table: Table, results: Path, *, models: Sequence[str] = (), group_size: int = 1
) -> Rendered:
    """Fill `table` with numbers, from the shapes of its models or from the records in `results`.

    models, group_size: the models and HiFT's m of a closed-form table, in place of its own. Raises UserError
    if another table gets either, if a closed-form table has no model, for an unknown model, for an m above a
    model's number of units, and for a matrix or record that cannot be read.
    """
    chosen = _models(table, models, group_size)
    if isinstance(table, LedgerTable):
        rows = ledger.rows(table, chosen, results, group_size=group_size)
        notes = (f"HiFT with m = {group_size} units per group.", *table.notes)
        rule = (ledger.RULES[table.shows],) if table.reference else ()
        if table.shows == "trainable_parameters":
            return Rendered(table, rows, cells.ledger(rows), notes + rule)
        summary = ledger.summary(rows)
        notes = (*filter(None, (summary,)), *notes, ledger.SIMULATED)
        return Rendered(table, rows, cells.ledger(rows), notes + rule, summary=summary)
    if isinstance(table, SimulatedTable):
        rows = simulated.grid_rows(table, results)
        return Rendered(table, rows, [cells.grid(row) for row in rows], table.notes)
    if isinstance(table, MeasuredTable):
        from benchmark.tables import measurements

        rows = measurements.rows(results)
        shown = [cells.measured(row) for row in rows]
        return Rendered(table, rows, shown, (*table.notes, measurements.RULE))
    if isinstance(table, SpeedTable):
        rows, notices = speeds.rows(results), tuple(speeds.notices(results))
        shown = [cells.speed(row) for row in rows]
        return Rendered(table, rows, shown, (*table.notes, *notices, speeds.RULE), notices)
    records = evidence.gather(table.matrix, results)
    notes = (f"Selection: {table.selection}", *table.notes, *records.notices)
    if isinstance(table, ScoreTable):
        rows = compare.score_rows(table, records)
        shown = [cells.score(row) for row in rows]
        return Rendered(table, rows, shown, (*notes, compare.rule(table)), records.notices)
    rows = compare.record_rows(table, records)
    return Rendered(table, rows, [cells.record(table, row) for row in rows], notes, records.notices)


def write_all(out: Path, results: Path) -> Path:
    """Write every table in every format, the picture of memory and the index to `out`; returns index.html.

    The index is written last, so that it never links to a file that was not written.
    """
    from benchmark.tables import picture

    rendered = [render(table, results) for table in complete()]
    for one in rendered:
        for format in FORMATS:
            write_text(out / f"{one.table.id}.{format}", one.text(format))
    picture.memory(out / "memory.png")
    for format in ("md", "html"):
        page = (
            environment(TEMPLATES, html=format == "html")
            .get_template(f"index.{format}.j2")
            .render(tables=rendered)
        )
        write_text(out / f"index.{format}", page)
    return out / "index.html"


def complete() -> list[Table]:
    """Every table that names its own models, so all but `memory`."""
    tables = [definition.load(name) for name in definition.names()]
    return [table for table in tables if not (isinstance(table, LedgerTable) and not table.models)]


def _models(table: Table, models: Sequence[str], group_size: int) -> tuple[str, ...]:
    """The models of a closed-form table: `models` from the user, or else its own; () for another table.

    Raises UserError for models or an m that the table does not take.
    """
    if not isinstance(table, LedgerTable):
        if models or group_size != 1:
            key = "--model" if models else "--group-size"
            raise UserError(f"table {table.id}: {key}: only a closed form takes one")
        return ()
    if not (models or table.models):
        raise UserError(f"table {table.id}: --model: name a known shape, a folder or a Hub id")
    if models and table.shows == "memory" and table.models:
        raise UserError(f"table {table.id}: --model: give it to the table memory instead")
    return tuple(models) or table.models


def filled_by(table: Table) -> str:
    """The source of a table's numbers: shapes, simulation, measurements, timings or a matrix."""
    if isinstance(table, LedgerTable):
        return "shapes" if table.shows == "trainable_parameters" else "shapes, simulation"
    if isinstance(table, MeasuredTable):
        return "measurements"
    if isinstance(table, SpeedTable):
        return "hift-bench speed"
    return "simulation" if isinstance(table, SimulatedTable) else f"matrix {table.matrix}"


def settings(table: Table, models: Sequence[str] = (), group_size: int = 1) -> list[Setting]:
    """The steps that --simulate simulates for `table`; none if it shows no simulated peak."""
    chosen = _models(table, models, group_size)
    if isinstance(table, SimulatedTable):
        return simulated.grid_settings(table)
    if not isinstance(table, LedgerTable) or table.shows != "memory":
        return []
    steps = (simulated.paper_settings(model, group_size=group_size) for model in chosen)
    return [setting for of_model in steps for setting in of_model.values()]


def overview() -> Rows:
    """The rows of `hift-bench tables --list`."""
    rows = []
    for name in definition.names():
        table = definition.load(name)
        published = 0
        if isinstance(table, ScoreTable):
            published = len(definition.scores(table))
        elif isinstance(table, LedgerTable | SimulatedTable) and table.reference:
            published = len(definition.published(table.reference))
        rows.append(
            {
                "table": table.id,
                "kind": table.kind,
                "title": table.title,
                "filled_by": filled_by(table),
                "published_values": published,
            }
        )
    return rows


def tex(value: object) -> str:
    """`value` as LaTeX that prints it literally."""
    return "".join(_TEX.get(character, character) for character in str(value))


def _longtable(page: Rendered) -> str:
    """The table as a booktabs longtable. Its first line, a comment, names the packages it needs."""
    head = " & ".join(tex(name) for name in page.shown[0])
    body = "".join(" & ".join(map(tex, row.values())) + " \\\\\n" for row in page.shown)
    notes = "".join(f"% {' '.join(note.split())}\n" for note in page.notes)
    columns = zip(*(row.values() for row in page.shown), strict=True)
    wraps = (max(map(len, column)) > 40 for column in columns)
    widths = "".join(r"p{0.2\linewidth}" if it else "l" for it in wraps)
    return (
        f"% {page.table.id}: needs \\usepackage{{booktabs,longtable}}\n{notes}"
        f"\\begin{{longtable}}{{{widths}}}\n"
        f"\\caption{{{tex(page.table.title)}}} \\\\\n"
        f"\\toprule\n{head} \\\\\n\\midrule\n\\endhead\n"
        f"{body}\\bottomrule\n\\end{{longtable}}\n"
    )
