"""list: the names that a matrix can use."""

from typing import Annotated

import typer

from benchmark.commands.options import TableFormat
from benchmark.console import Format, show


def list_(
    what: Annotated[str, typer.Argument(help="tasks, models, strategies or matrices")],
    format: TableFormat = Format.text,
) -> None:
    """List the tasks, models, strategies or matrices, by the names that a matrix uses."""
    from benchmark.matrices import listing

    rows = listing.rows(what)
    show(listing.brief(rows) if format is Format.text else rows, format)
