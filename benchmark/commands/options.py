"""Options and helper functions that several commands share."""

import math
import os
import re
import reprlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.console import Format, printable
from benchmark.errors import UserError
from benchmark.records import yamltext

if TYPE_CHECKING:
    from benchmark.matrices.pending import Share

MatrixFile = Annotated[
    Path, typer.Argument(help="A matrix YAML, or the name of a matrix of this package: demo.")
]
Results = Annotated[Path, typer.Option("--results", help="The folder of the records.")]
Reports = Annotated[Path, typer.Option("--reports", help="The folder for reports.")]
TableFormat = Annotated[Format, typer.Option("--format", help="How to print the table.")]
Wide = Annotated[
    bool,
    typer.Option(
        "--wide", help="All columns as text, however wide; else those that 80 characters hold."
    ),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        help="MLflow's tracking URI. Default: MLFLOW_TRACKING_URI, or a local sqlite file.",
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
MOST = 2**31 - 1
"""The largest count that an option may be."""
RESULTS, REPORTS = Path("results"), Path("reports")


def say(line: str) -> None:
    """Print `line` to stderr: stdout holds nothing but the table."""
    sys.stderr.write(printable(line) + "\n")


def positive(value: float) -> float:
    """The option's value, if it is a positive number; typer calls this."""
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"{value} is not a positive number.")
    return value


def use_mirror(folder: Path | None) -> None:
    """Make `data: mirror` read `folder`, in the runs' processes too. None changes nothing."""
    if folder is not None:
        os.environ["HIFT_DATA_ROOT"] = str(folder.resolve())


def strategy_options(texts: Sequence[str] | None, **flags: Any) -> dict[str, Any]:
    """The options for strategies from the command line, by name: the `flags` that are not None and those of
    `key_values`."""
    options = {name: value for name, value in flags.items() if value is not None}
    return key_values("--option", "group_size=2", texts, options)


def key_values(
    flag: str,
    example: str,
    texts: Sequence[str] | None,
    given: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """The values of the NAME=VALUE `texts`, which are YAML as in a matrix, by name, and those `given`.

    Raises UserError for any other text, and for a name that comes twice.
    """
    options = dict(given)
    for text in texts or ():
        name, is_pair, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not name or not is_pair:
            raise UserError(f"{flag} {text}: not NAME=VALUE, such as {example}")
        if name in options:
            raise UserError(f"{flag} {text}: {name} is given twice")
        try:
            options[name] = yamltext.parse(value)
        except ValueError as error:
            raise UserError(
                f"{flag} {name}: {reprlib.repr(value)} is not valid YAML: {error}"
            ) from None
    return options


def parse_duration(flag: str, text: str | None) -> float | None:
    """A time such as 90s, 30min or 2h in seconds. Raises UserError, naming the option, for any other text."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) *(s|min|h|d)", text.strip())
    if not found or not (seconds := float(found[1]) * _SECONDS[found[2]]):
        raise UserError(f"{flag} {text}: not a time, such as 90s, 30min, 2h or 1d")
    return seconds


_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def parse_shard(text: str | None) -> "Share":
    """The part of a matrix that --shard names as number/of; the whole for None. Raises UserError."""
    from benchmark.matrices.pending import ALL, Share

    if text is None:
        return ALL
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--shard {text}: not a part of a matrix, such as 1/4, 2/4, 3/4 or 4/4")
    return Share(int(found[1]), int(found[2]))
