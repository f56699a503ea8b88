"""Tables on stdout, and text made harmless for Markdown and for a terminal.

Every command that prints one takes --format text|json|csv|md.
"""

import csv
import enum
import io
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any


class Format(enum.StrEnum):
    """How a table is printed."""

    text = "text"
    json = "json"
    csv = "csv"
    md = "md"


def show(
    rows: Sequence[Mapping[str, Any]], format: Format, *, title: str = "", empty: str = "nothing"
) -> None:
    """Print `rows`, which share their keys. None is null in JSON and blank elsewhere.

    title: printed above the rows, in text only. empty: printed in text in place of no rows.
    """
    if format is Format.json:
        sys.stdout.write(json.dumps(list(rows), indent=2, allow_nan=False) + "\n")
    elif format is Format.csv:
        sys.stdout.write(as_csv(rows))
    elif format is Format.md:
        sys.stdout.write(as_markdown(rows))
    elif not rows:
        sys.stdout.write(f"{title}: {empty}\n" if title else f"{empty}\n")
    else:
        _show_text(rows, title)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV, with a header; lines end in `\\n`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a GitHub-flavoured table, whose cells show their text literally."""
    if not rows:
        return ""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    for row in rows:
        cells = (escape_markdown(_text(value)) for value in row.values())
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def escape_markdown(value: object) -> str:
    """`value` escaped so that GitHub-flavoured Markdown shows it literally, also inside a table cell."""
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~$#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", text)


def printable(text: str) -> str:
    """`text` with characters that could control a terminal, other than newlines, as escapes such as \\x1b."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _show_text(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title or None, title_justify="left")
    for name, sample in rows[0].items():
        numeric = isinstance(sample, int | float) and not isinstance(sample, bool)
        table.add_column(escape(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(_text(value))) for value in row.values()))
    console = Console()
    # a pipe has no width; 200 characters hold every column
    (console if console.is_terminal else Console(width=200)).print(table)
