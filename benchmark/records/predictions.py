"""The predictions of a run, a file of JSON lines that its record names. Standard library only."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import UserError
from benchmark.files import write_text
from benchmark.records.jsonfile import parse


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """A file's columns, one value an example: hash of the example, prediction, reference, and score.

    `scores` are the main score of each example (`metrics.per_example`), None where the metric has none.
    """

    ids: list[str]
    predictions: list[Any]
    references: list[Any]
    scores: list[float] | None


def write(path: Path, table: Predictions) -> None:
    """Write one line per example, atomically: id, prediction, reference, and score unless it is None."""
    columns = {"id": table.ids, "prediction": table.predictions, "reference": table.references}
    if table.scores is not None:
        columns["score"] = table.scores
    rows = zip(*columns.values(), strict=True)
    lines = (json.dumps(dict(zip(columns, row, strict=True)), allow_nan=False) for row in rows)
    write_text(path, "".join(f"{line}\n" for line in lines))


def read(path: Path) -> Predictions:
    """Read a file that `write` wrote. Raises UserError naming the file and the first malformed line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: predictions cannot be read: {reason}") from None
    rows = _values(lines)
    try:
        columns = [[row[name] for row in rows] for name in ("id", "prediction", "reference")]
        scores = [row.get("score") for row in rows]
    except (KeyError, TypeError, AttributeError):
        number = next(n for n, row in enumerate(rows, start=1) if not _is_whole(row))
        raise UserError(f"{path}: line {number} has no id, prediction and reference") from None
    return Predictions(
        ids=columns[0],
        predictions=columns[1],
        references=columns[2],
        scores=_checked(scores, path),
    )


def _values(lines: Sequence[str]) -> list[Any]:
    """The JSON value of each line, None for a line that is not JSON."""
    try:
        # one call for all lines takes a third of the time of one call a line
        rows = parse(f"[{','.join(lines)}]")
        if len(rows) == len(lines):
            return rows
    except ValueError:
        pass
    return [_value(line) for line in lines]


def _value(line: str) -> Any:
    try:
        return parse(line)
    except ValueError:
        return None


def _is_whole(row: Any) -> bool:
    return isinstance(row, dict) and {"id", "prediction", "reference"} <= row.keys()


def _checked(scores: list[Any], path: Path) -> list[float] | None:
    """The scores as floats, None where no line has one. Raises UserError naming the line of a bad score."""
    kinds = set(map(type, scores))
    if kinds <= {int, float}:
        return list(map(float, scores)) if scores else None
    if kinds == {type(None)}:
        return None
    for number, score in enumerate(scores, start=1):
        if (score is None) != (scores[0] is None):
            raise UserError(f"{path}: line {number}: some lines have a score and others do not")
        if score is not None and type(score) not in (int, float):
            raise UserError(f"{path}: line {number}: score: {score!r} is not a number")
    raise AssertionError("no bad score found")
