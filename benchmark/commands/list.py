"""list: the names that a matrix can use."""

from typing import Annotated

import typer

from benchmark.commands.options import TableFormat, Wide
from benchmark.console import Format, show


def list_(
    what: Annotated[str, typer.Argument(help="tasks, models, strategies or matrices")],
    format: TableFormat = Format.text,
    wide: Wide = False,
) -> None:
    """List the tasks, models, strategies or matrices, by the names that a matrix uses."""
    from benchmark.matrices import listing

    show(listing.rows(what), format, brief=listing.BRIEF[what], wide=wide)
