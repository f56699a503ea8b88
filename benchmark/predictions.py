"""The predictions of a run: JSON lines in a file that its record names. Standard library alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import UserError
from benchmark.record import parse, write_text


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The lines as columns: a hash per example, prediction, reference, and the main score of each example
    (`metrics.per_example`), None where the file has none."""

    ids: list[str]
    predictions: list[Any]
    references: list[Any]
    scores: list[float] | None


def write(path: Path, kept: Predictions) -> None:
    """One line per example, atomically: id, prediction, reference, and score where there is one."""
    columns = {"id": kept.ids, "prediction": kept.predictions, "reference": kept.references}
    if kept.scores is not None:
        columns["score"] = kept.scores
    rows = zip(*columns.values(), strict=True)
    lines = (json.dumps(dict(zip(columns, row, strict=True)), allow_nan=False) for row in rows)
    write_text(path, "".join(f"{line}\n" for line in lines))


def read(path: Path) -> Predictions:
    """What `write` wrote. Raises UserError naming the file, and the line that is none of it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: predictions cannot be read: {reason}") from None
    rows = _values(lines)
    wanted = {"id", "prediction", "reference"}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not wanted <= row.keys():
            raise UserError(f"{path}: line {number} has no id, prediction and reference")
        score = row.get("score")
        if (score is None) != (rows[0].get("score") is None):
            raise UserError(f"{path}: line {number}: some lines have a score, and others none")
        if score is not None and type(score) not in (int, float):
            raise UserError(f"{path}: line {number}: score: {score!r} is no number")
    scored = bool(rows) and rows[0].get("score") is not None
    return Predictions(
        ids=[row["id"] for row in rows],
        predictions=[row["prediction"] for row in rows],
        references=[row["reference"] for row in rows],
        scores=[float(row["score"]) for row in rows] if scored else None,
    )


def _values(lines: Sequence[str]) -> list[Any]:
    """The JSON value of each line, None for a line that is none."""
    try:
        rows = parse(
            f"[{','.join(lines)}]"
        )  # at once: a third of the time that they take one by one
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
