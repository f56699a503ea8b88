"""The options that several commands share, and how a command speaks to the person."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmark.console import Format

MatrixFile = Annotated[
    Path, typer.Argument(help="A matrix YAML, such as those in benchmark/matrices.")
]
Results = Annotated[Path, typer.Option("--results", help="Where records lie and go.")]
Reports = Annotated[Path, typer.Option("--reports", help="Where reports are written.")]
TableFormat = Annotated[Format, typer.Option("--format", help="How to print the table.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri", help="MLflow's; MLFLOW_TRACKING_URI or a local sqlite without it."
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", help="A folder laid out like the Hub, for `data: mirror`."),
]
RESULTS, REPORTS = Path("results"), Path("reports")


def say(line: str) -> None:
    """A line for the person, on stderr, so that stdout holds the table alone."""
    sys.stderr.write(line + "\n")


def use_mirror(folder: Path | None) -> None:
    """Let `data: mirror` mean this folder, in the runs' processes too; None leaves it as it is."""
    if folder is not None:
        os.environ["HIFT_DATA_ROOT"] = str(folder.resolve())
