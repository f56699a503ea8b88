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

    texts = [[name, *(_text(row[name]) for row in rows)] for name in names]
    lengths = [[cell_len(printable(text)) for text in column] for column in texts]
    words = [
        max(cell_len(word) for text in column for word in ("", *printable(text).split()))
        for column in texts
    ]
    widths = _widths([max(column) for column in lengths], words, width)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for column, wide in zip(texts, widths, strict=True):
        numbers = all(map(_NUMBER.fullmatch, filter(None, column[1:])))
        table.add_column(
            escape(printable(column[0])), justify="right" if numbers else "left", width=wide
        )
    for row in zip(*(column[1:] for column in texts), strict=True):
        table.add_row(*(escape(printable(text)) for text in row))
    if title:
        console = Console(width=width or _UNBOUNDED)
        console.print(escape(printable(title)) + "\n", highlight=False)
    Console(width=_UNBOUNDED).print(table)


def _widths(longest: Sequence[int], words: Sequence[int], width: int | None) -> list[int]:
    """The characters of each column, of which the texts have at most `longest` and the words at most `words`.

    Lines of more than `width` characters are shortened where that breaks the fewest, and never within a word.
    """
    if width is None:
        return list(longest)
    widths = list(words)
    for _ in range(width - sum(words) - _GAP * (len(words) - 1)):
        tightest = max(range(len(widths)), key=lambda at: longest[at] / max(widths[at], 1))
        widths[tightest] += widths[tightest] < longest[tightest]
    return widths


_GAP = 2
"""Characters between two columns."""
_UNBOUNDED = 10**6
_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+(e[-+]?\d+)?|–")
