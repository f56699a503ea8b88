"""Tables on stdout, and text made harmless for Markdown and for a terminal.

Every command that prints one takes --format text|json|csv|md, and --wide.
"""

import csv
import enum
import io
import json
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 80
"""The columns of a terminal that a table takes unless it is wide, wherever stdout goes."""


class Format(enum.StrEnum):
    """How a table is printed."""

    text = "text"
    json = "json"
    csv = "csv"
    md = "md"


def show(
    rows: Sequence[Mapping[str, Any]],
    format: Format,
    *,
    title: str = "",
    empty: str = "nothing",
    brief: Sequence[str] = (),
    wide: bool = False,
) -> None:
    """Print `rows`, which share their keys. None is null in JSON and blank elsewhere.

    title: printed above the rows, in text only. empty: printed in text in place of no rows. brief: the
    columns that text shows where there are such; all if it names none. Those that are blank in every row are
    left out, and the lines have WIDTH characters. wide: text shows every column instead, and a line for each
    row.
    """
    if format is Format.json:
        sys.stdout.write(json.dumps(list(rows), indent=2, allow_nan=False) + "\n")
    elif format is Format.csv:
        sys.stdout.write(as_csv(rows))
    elif format is Format.md:
        sys.stdout.write(as_markdown(rows))
    elif not rows:
        sys.stdout.write(f"{title}: {empty}\n" if title else f"{empty}\n")
    elif wide:
        _show_text(rows, list(rows[0]), title, width=None)
    else:
        names = [name for name in brief or rows[0] if name in rows[0]]
        filled = [name for name in names if any(_text(row[name]) for row in rows)]
        _show_text(rows, filled or names, title, width=WIDTH)


def turned(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """`rows` as columns headed by `names`: a row for each key that is not None in all."""
    return [
        {"": key} | {name: row[key] for name, row in zip(names, rows, strict=True)}
        for key in rows[0]
        if any(row[key] is not None for row in rows)
    ]


def paragraph(text: str) -> None:
    """Print `text` on lines of WIDTH characters, which break between words."""
    lines = textwrap.wrap(printable(text), WIDTH, break_long_words=False, break_on_hyphens=False)
    sys.stdout.write("\n".join(lines) + "\n")


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


def _show_text(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], title: str, width: int | None
) -> None:
    """Print the columns `names` of `rows`. Lines break between words, so that no id is split.

    A table whose longest words need more than `width` is as wide as they are. None: no line breaks.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in names:
        cells = [_text(row[name]) for row in rows]
        words = [word for text in (name, *map(printable, cells)) for word in text.split()]
        table.add_column(
            escape(printable(name)),
            justify="right" if all(map(_NUMBER.fullmatch, filter(None, cells))) else "left",
            min_width=max(map(cell_len, words), default=0),
            no_wrap=width is None or not any(" " in text for text in (name, *cells)),
        )
    for row in rows:
        table.add_row(*(escape(printable(_text(row[name]))) for name in names))
    unbounded = Console(width=_UNBOUNDED)
    needed = unbounded.measure(table)
    console = Console(width=needed.maximum if width is None else max(width, needed.minimum))
    if title:
        console.print(escape(printable(title)) + "\n", highlight=False, soft_wrap=width is None)
    console.print(table, crop=False)


_UNBOUNDED = 10**6
_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+(e[-+]?\d+)?|–")
