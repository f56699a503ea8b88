"""rescore: recompute every score of a matrix from the stored predictions."""

from typing import Annotated

import typer

from benchmark.commands.options import RESULTS, MatrixFile, Results, TableFormat, Wide, say
from benchmark.console import Format, show


def rescore(
    matrix: MatrixFile,
    results: Results = RESULTS,
    write: Annotated[
        bool, typer.Option("--write", help="Write the new scores into the records.")
    ] = False,
    format: TableFormat = Format.text,
    wide: Wide = False,
) -> None:
    """Recompute every score from the stored predictions; exit 1 if one differs from its record."""
    from benchmark.matrices import matrix as matrices
    from benchmark.matrices import rescore as scoring

    rescored = scoring.rescore(matrices.load(matrix), results, note=say)
    show([row for run in rescored for row in run.rows()], format, wide=wide)
    changed = sum(run.changed for run in rescored)
    if write:
        say(f"rescore: {scoring.write(rescored)} of {len(rescored)} records written")
        return
    say(f"rescore: {changed} of {len(rescored)} runs would change")
    if changed:
        raise typer.Exit(1)
