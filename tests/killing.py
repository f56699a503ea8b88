"""Runners that are killed: how they are started, how far their trainings are, and what they end with."""

import csv
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from documents import surroundings

from benchmark.records import record
from benchmark.records.record import RunRecord


def start(folder: Path, matrix: str, *options: str) -> subprocess.Popen[bytes]:
    """`hift-bench run` of the matrix in `folder`; what it says is appended to the file `log` there."""
    folder.mkdir(exist_ok=True)
    (folder / "m.yaml").write_text(matrix)
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            ["hift-bench", "run", "m.yaml", *options],
            cwd=folder,
            env=surroundings(),
            stdout=log,
            stderr=log,
        )


def checkpoint(folder: Path) -> int:
    """When the newest checkpoint of a training was written, in ns; 0 if there is none."""
    newest = 0
    for path in (folder / "results" / "_scratch").glob("*/*.unfinished/checkpoint.pt"):
        try:
            newest = max(newest, os.stat(path).st_mtime_ns)
        except FileNotFoundError:  # its run has just ended
            continue
    return newest


class End(NamedTuple):
    """A record, and what must not depend on how its run came about."""

    record: RunRecord
    content: dict[str, Any]


def ends_of(folder: Path, matrix: str) -> dict[str, End]:
    """run id -> how it ended: scores, predictions and curve without timings."""
    found = {}
    results = folder / "results" / matrix
    for one in record.load_all(results):
        with open(results / str(one.curve), newline="") as file:
            rows = [{**row, "seconds": "", "step_ms": ""} for row in csv.DictReader(file)]
        found[one.run_id] = End(
            one,
            {
                "status": one.status,
                "scores": one.scores,
                "params": one.params,
                "loss": one.train and one.train.final_loss,
                "predictions": (results / str(one.predictions)).read_bytes(),
                "curve": rows,
            },
        )
    return found
