"""The rows of a split that a run can draw from: a slice of it, without the rows that `without` excludes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmark.data import own_files
from benchmark.errors import UserError, nearest
from tasks.base import DatasetConfig, TaskConfig
from tasks.dataset import HELD_OUT, REST

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_SLICE = re.compile(r"(?P<split>[^\[]+)(\[(?P<start>\d*):(?P<stop>\d*)\])?")


@dataclass(frozen=True)
class Part:
    """Rows or examples that a run can draw from.

    `numbers`: the number of each row in its split, for messages. `left_out`: number of rows that the task's
    `without` excludes.
    """

    rows: "Dataset"
    numbers: Sequence[int]
    left_out: int = 0

    def only(self, indices: Sequence[int]) -> "Part":
        """The rows at `indices`, in that order."""
        return Part(self.rows.select(indices), [self.numbers[index] for index in indices])


def name(dataset: DatasetConfig, role: str) -> str:
    """The name of the split of a role (`train` or `eval`), without its slice."""
    return dataset.splits[role].partition("[")[0]


def part(splits: "DatasetDict", task: TaskConfig, role: str, where: str) -> Part:
    """The rows of a role (`train` or `eval`). Raises UserError for a split or column that does not exist."""
    dataset, where = task.dataset, f"{where}: {task.name}"
    of_a_share = dataset.splits[role] in (REST, HELD_OUT)
    named = _SLICE.fullmatch(name(dataset, role) if of_a_share else dataset.splits[role])
    split = named["split"] if named else dataset.splits[role]
    if named is None or split not in splits:
        raise UserError(f"{where}: split {split} does not exist; there are {', '.join(splits)}")
    rows = splits[split]
    if not named[2] and not dataset.without and not of_a_share:
        return Part(rows, range(len(rows)))
    numbers = list(range(len(rows)))[slice(*(int(n) if n else None for n in named.group(3, 4)))]
    in_slice = len(numbers)
    for column, value in dataset.without.items():
        if column not in rows.column_names:
            hint = nearest(column, rows.column_names)
            raise UserError(f"{where}: {split} has no column {column}{hint}")
        values = rows[column][:]  # [:], as a column itself reads one row at a time
        numbers = [number for number in numbers if values[number] != value]
    left_out = in_slice - len(numbers)
    if of_a_share:  # both roles have the same rows
        left_out = left_out if role == "train" else 0
        numbers = own_files.part(rows.select(numbers), numbers, task, role, where)
    return Part(rows.select(numbers), numbers, left_out)
