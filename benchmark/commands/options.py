"""The options that several commands share, and how a command speaks to the person."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from benchmark.console import Format
from benchmark.errors import UserError

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
StrategyOptions = Annotated[
    list[str] | None,
    typer.Option("--option", help="A strategy's own option, as r=8 or targets=[q_proj, v_proj]."),
]
RESULTS, REPORTS = Path("results"), Path("reports")


def say(line: str) -> None:
    """A line for the person, on stderr, so that stdout holds the table alone."""
    sys.stderr.write(line + "\n")


def use_mirror(folder: Path | None) -> None:
    """Let `data: mirror` mean this folder, in the runs' processes too; None leaves it as it is."""
    if folder is not None:
        os.environ["HIFT_DATA_ROOT"] = str(folder.resolve())


def strategy_options(texts: Sequence[str] | None, **flags: Any) -> dict[str, Any]:
    """The strategies' options that a command was given: `flags` that are not None, and NAME=VALUE `texts`,
    whose values are read as in a matrix. Raises UserError for any other text, and for a name given twice."""
    given = {name: value for name, value in flags.items() if value is not None}
    for text in texts or ():
        name, is_pair, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not name or not is_pair:
            raise UserError(f"--option {text}: is not NAME=VALUE, such as group_size=2")
        if name in given:
            raise UserError(f"--option {text}: {name} is given twice")
        try:
            given[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--option {text}: {value!r} is no value of a matrix") from None
    return given
