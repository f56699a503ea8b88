"""regress: the tiny-model regression that CI runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmark.commands.options import RESULTS, say
from benchmark.records.folders import Folder


def regress(
    update: Annotated[bool, typer.Option("--update", help="Rewrite the golden values.")] = False,
    golden: Annotated[Path, typer.Option(help="The golden values.")] = RESULTS / Folder.regression,
) -> None:
    """Run the tiny-model regression and compare it with the golden values; exit 1 if a value drifted."""
    from benchmark.commands.progress import bars
    from benchmark.matrices import regression

    tolerance, drifts = regression.run(golden, update=update, bars=bars)
    if update:
        say(f"golden values written to {golden}")
        return
    for drift in drifts:
        sys.stdout.write(f"{drift}\n")
    allowed = f"losses to {tolerance.loss:g} relative, scores to {tolerance.score:g}"
    if tolerance != regression.SAME:
        allowed += " (the wider tolerance: the golden values are from another torch version or kind of CPU)"
    say(
        f"regress: {len(drifts)} values drifted ({allowed})"
        if drifts
        else f"regress: fine ({allowed})"
    )
    if drifts:
        raise typer.Exit(1)
