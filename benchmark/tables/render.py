"""A table as rows for machines (unrounded) and as text for people, in each of the six formats.

Everything from a record or a YAML is escaped: by Jinja2's autoescape in HTML, by `tex` in LaTeX. Equal
records give equal bytes, since reports/paper is committed.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmark.errors import UserError
from benchmark.record import write_text
from benchmark.report import escape_markdown
from benchmark.table import as_csv, as_markdown
from benchmark.tables import compare, definition, evidence
from benchmark.tables.definition import LedgerTable, RecordTable, ScoreTable, Table

Rows = list[dict[str, Any]]
FORMATS = ("md", "csv", "json", "tex", "html")
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
    """A table with its numbers: `rows`, unrounded, for csv and json; `shown`, rounded, for people."""

    table: Table
    rows: Rows
    shown: list[dict[str, str]]
    notes: tuple[str, ...]

    @property
    def verdicts(self) -> str:
        """How many rows have which verdict."""
        counts = Counter(
            str(row["verdict"]).partition(":")[0] for row in self.rows if row["verdict"]
        )
        return ", ".join(f"{count} {name}" for name, count in counts.items())

    @property
    def filled_by(self) -> str:
        """What gives it its numbers: shapes, or a matrix."""
        return "shapes" if isinstance(self.table, LedgerTable) else f"matrix {self.table.matrix}"

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
        return _environment(html=True).get_template("table.html.j2").render(page=self)


def render(
    table: Table, results: Path, *, models: Sequence[str] = (), group_size: int = 1
) -> Rendered:
    """Fill `table` from the shapes of its models (or of `models` instead), or from the records in `results`.

    group_size: HiFT's m in a table of shapes. Raises UserError for models or m given to a table of
    records, no model given to a table that names none, an unknown model, an m beyond a model's units,
    and a matrix or record that cannot be read.
    """
    if isinstance(table, LedgerTable):
        if not (models or table.models):
            raise UserError(f"table {table.id}: --model: name a known shape, a folder or a Hub id")
        if models and table.shows == "memory" and table.models:
            raise UserError(f"table {table.id}: --model: give it to the table memory instead")
        rows = compare.ledger_rows(table, models or table.models, group_size=group_size)
        notes = (f"HiFT with m = {group_size} units per group.", *table.notes)
        rule = (compare.LEDGER_RULE,) if table.reference else ()
        return Rendered(table, rows, _ledger_cells(rows), notes + rule)
    if models or group_size != 1:
        key = "--model" if models else "--group-size"
        raise UserError(f"table {table.id}: {key}: its rows come from records, not from a shape")
    found = evidence.gather(table.matrix, results)
    notes = (f"Selection: {table.selection}", *table.notes, *found.notices)
    if isinstance(table, ScoreTable):
        rows = compare.score_rows(table, found)
        return Rendered(
            table, rows, [_score_cells(row) for row in rows], (*notes, compare.rule(table))
        )
    rows = compare.record_rows(table, found)
    return Rendered(table, rows, [_record_cells(table, row) for row in rows], notes)


def write_all(out: Path, results: Path) -> Path:
    """Every table in every format, an index and the picture of memory into `out`; returns its index.html.

    The index is written last, so a crash leaves none that names what is not there.
    """
    from benchmark.tables import picture

    tables = [definition.load(name) for name in definition.names()]
    made = [render(t, results) for t in tables if not (isinstance(t, LedgerTable) and not t.models)]
    for one in made:
        for format in FORMATS:
            write_text(out / f"{one.table.id}.{format}", one.text(format))
    picture.memory(out / "memory.png")
    for format in ("md", "html"):
        page = (
            _environment(html=format == "html")
            .get_template(f"index.{format}.j2")
            .render(tables=made)
        )
        write_text(out / f"index.{format}", page)
    return out / "index.html"


def overview() -> Rows:
    """What `hift-bench tables --list` prints."""
    rows = []
    for name in definition.names():
        table = definition.load(name)
        held = 0
        if isinstance(table, ScoreTable):
            held = len(definition.scores(table))
        elif isinstance(table, LedgerTable) and table.reference:
            held = len(definition.published(table.reference))
        rows.append(
            {
                "table": table.id,
                "kind": table.kind,
                "title": table.title,
                "filled_by": "shapes" if isinstance(table, LedgerTable) else table.matrix,
                "published_values": held,
            }
        )
    return rows


def tex(value: object) -> str:
    """`value` as LaTeX that prints it literally; a double minus for a dash, a math sign for a sign."""
    return "".join(_TEX.get(character, character) for character in str(value))


def _longtable(page: Rendered) -> str:
    """A booktabs longtable; the preamble needs both packages, which its first line says."""
    head = " & ".join(tex(name) for name in page.shown[0])
    body = "".join(" & ".join(map(tex, row.values())) + " \\\\\n" for row in page.shown)
    notes = "".join(f"% {' '.join(note.split())}\n" for note in page.notes)
    columns = zip(*(row.values() for row in page.shown), strict=True)
    wide = (max(map(len, column)) > 40 for column in columns)  # such a column wraps
    widths = "".join(r"p{0.2\linewidth}" if it else "l" for it in wide)
    return (
        f"% {page.table.id}: needs \\usepackage{{booktabs,longtable}}\n{notes}"
        f"\\begin{{longtable}}{{{widths}}}\n"
        f"\\caption{{{tex(page.table.title)}}} \\\\\n"
        f"\\toprule\n{head} \\\\\n\\midrule\n\\endhead\n"
        f"{body}\\bottomrule\n\\end{{longtable}}\n"
    )


def _environment(*, html: bool) -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=html,
        finalize=None if html else escape_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _ledger_cells(rows: Rows) -> list[dict[str, str]]:
    """The rows as text: a quantity with published values as `paper / ours`, "–" where there is none."""
    printed = {name for name in HEADINGS for row in rows if row.get(f"{name}_paper") is not None}
    shown = []
    for row in rows:
        cells = {}
        for name, value in row.items():
            if name.endswith(("_paper", "_difference")) or name == "source":
                continue
            heading, digits = HEADINGS.get(name, (name.replace("_", " "), 0))
            ours = _number(value, digits) if name in HEADINGS else _whole(value)
            if name in printed:
                cells[f"{heading}: paper / ours"] = f"{_plain(row[f'{name}_paper'])} / {ours}"
            elif printed or name != "verdict":
                cells[heading] = ours
        shown.append(cells)
    return shown


def _score_cells(row: Mapping[str, Any]) -> dict[str, str]:
    spread = {"std": " ± {:g}", "ci": " (interval ± {:g})"}.get(row["spread_kind"] or "", "")
    paper = "–" if row["paper"] is None else f"{row['paper']:g}{spread.format(row['paper_spread'])}"
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


def _record_cells(table: RecordTable, row: Mapping[str, Any]) -> dict[str, str]:
    if "task" not in row:
        return {"verdict": _verdict(row)}
    units = {"ratio_peak": ("trainable ratio, peak", 4), "step_ratio": ("step, relative", 3)}
    units |= {"peak_mib": ("peak memory, MiB", 1), "host_state_mib": ("state on the host, MiB", 1)}
    units |= {"step_ms": ("step, ms", 1)}
    costs = {units[name][0]: _number(row[name], units[name][1]) for name in table.shows}
    names = {name: str(row[name] or "–") for name in ("task", "data", "model", "strategy")}
    score = f"{_mean(row, 4)} {row['metric'] or ''}".strip()
    return names | {"score, mean ± std (n)": score} | costs | {"verdict": _verdict(row)}


def _verdict(row: Mapping[str, Any]) -> str:
    return f"{row['verdict']}: {row['why']}" if row["why"] else str(row["verdict"])


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
