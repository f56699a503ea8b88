"""rescore: every score of a matrix again from its stored predictions."""

from typing import Annotated

import typer

from benchmark.commands.options import RESULTS, MatrixFile, Results, TableFormat, say
from benchmark.console import Format, show


def rescore(
    matrix: MatrixFile,
    results: Results = RESULTS,
    write: Annotated[
        bool, typer.Option("--write", help="Put the new scores into the records.")
    ] = False,
    format: TableFormat = Format.text,
) -> None:
    """Compute every score again from the stored predictions; exit 1 where one differs from its record."""
    from benchmark.matrices import matrix as matrices
    from benchmark.matrices import rescore as scoring

    found = scoring.rescore(matrices.load(matrix), results)
    show([row for run in found for row in run.rows()], format)
    changed = sum(run.changed for run in found)
    if write:
        say(f"rescore: {scoring.write(found)} of {len(found)} records written")
        return
    say(f"rescore: {changed} of {len(found)} runs would change")
    if changed:
        raise typer.Exit(1)
