"""The files of a task of the user's own: their faults, columns and rows, and the rows held out."""

import csv
import functools
import glob
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmark.data import overlap
from benchmark.errors import UserError, nearest
from tasks.base import TaskConfig
from tasks.dataset import SHARE, SHARE_SEED
from tasks.own import FORMATS

if TYPE_CHECKING:
    from datasets import Dataset


class Contents(NamedTuple):
    """The columns of a file, and its number of rows."""

    columns: tuple[str, ...]
    rows: int


def contents(path: Path) -> Contents:
    """What is in a file. Raises UserError for a file that is missing, empty or not in its format."""
    try:
        status = path.stat()
        found = _contents(path, status.st_size, status.st_mtime_ns)
    except OSError:
        there = [file.name for file in path.parent.glob("*") if file.suffix in FORMATS]
        raise UserError(f"{path}: no such file{nearest(path.name, there)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
    if not found.rows:
        raise UserError(f"{path}: has no rows")
    return found


@functools.lru_cache
def _contents(path: Path, size: int, changed: int) -> Contents:
    """`contents` of the file of that size and time of change, which are part of the key of the cache."""
    return {".jsonl": _of_jsonl, ".csv": _of_csv, ".parquet": _of_parquet}[path.suffix](path)


def _of_jsonl(path: Path) -> Contents:
    columns, rows = dict[str, None](), 0
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}: line {number}: no JSON: {error}") from None
            if not isinstance(row, dict):
                raise UserError(f"{path}: line {number}: no JSON object of columns and values")
            columns |= dict.fromkeys(row)
            rows += 1
    return Contents(tuple(columns), rows)


def _of_csv(path: Path) -> Contents:
    csv.field_size_limit(sys.maxsize)
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            rows = (row for row in csv.reader(file, strict=True) if row)
            header = next(rows, [])
            return Contents(tuple(header), sum(1 for _ in rows))
        except csv.Error as error:
            raise UserError(f"{path}: no CSV: {error}") from None


def _of_parquet(path: Path) -> Contents:
    import pyarrow
    import pyarrow.parquet

    try:
        footer = pyarrow.parquet.read_metadata(path)
    except pyarrow.ArrowException:
        raise UserError(f"{path}: damaged or cut short: not a whole parquet file") from None
    return Contents(tuple(footer.schema.to_arrow_schema().names), footer.num_rows)


def train_rows(task: TaskConfig) -> int:
    """The number of rows to train on: with `shots` as many as there are shots. It is off by a few where rows
    are held out for evaluation, as equal rows stay together."""
    rows = contents(Path(task.dataset.files["train"])).rows
    rows = rows if "eval" in task.dataset.files else rows - _share(rows)
    if task.dataset.shots is None:
        return rows
    classes = getattr(task, "labels", getattr(task, "words", ()))
    return min(rows, task.dataset.shots.count * len(classes))


def read(path: Path, cache: Path) -> "Dataset":
    """The rows of a file, read into the folder `cache`. Raises UserError for rows of different types."""
    import datasets

    contents(path)
    datasets.disable_progress_bars()
    # an empty cell, or one with the text "None" or "NA", is no missing number
    arguments: Mapping[str, Any] = {"keep_default_na": False} if path.suffix == ".csv" else {}
    try:
        rows: Dataset = datasets.load_dataset(
            FORMATS[path.suffix],
            data_files=glob.escape(str(path.resolve())),
            split="train",
            cache_dir=str(cache),
            **arguments,
        )
    except Exception as error:  # the library raises many types for unreadable data
        shutil.rmtree(cache, ignore_errors=True)
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise UserError(f"{path}: cannot be read: {reason}") from error
    return rows


def part(rows: "Dataset", numbers: list[int], task: TaskConfig, role: str, where: str) -> list[int]:
    """The `numbers` of the rows of a role among those of `rows`, where the user gave no file for evaluation.

    SHARE of the rows is held out, drawn with SHARE_SEED; equal inputs and rows of one group stay together.
    """
    groups = overlap.groups(overlap.sources(rows, task, where))
    if len(groups) < 2:
        raise UserError(f"{where}: too few different rows to hold some out: give data.eval")
    held_out = set(_drawn(groups, _share(len(rows))))
    return [n for at, n in enumerate(numbers) if (at in held_out) == (role == "eval")]


def _share(rows: int) -> int:
    return max(1, round(rows * SHARE))


def _drawn(groups: list[list[int]], wanted: int) -> Iterator[int]:
    """The rows of groups drawn at random until there are `wanted`: of one group at least, never of all."""
    import numpy as np

    taken = 0
    for number in np.random.default_rng(SHARE_SEED).permutation(len(groups))[:-1]:
        if taken >= wanted:
            return
        yield from groups[number]
        taken += len(groups[number])
