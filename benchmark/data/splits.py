"""Which rows of a dataset a run can draw from: slices of splits, less the rows that are no examples."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmark.errors import UserError, nearest
from tasks.base import DatasetConfig, TaskConfig

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_SLICE = re.compile(r"(?P<split>[^\[]+)(\[(?P<start>\d*):(?P<stop>\d*)\])?")


@dataclass(frozen=True)
class Part:
    """The examples that a run can draw from, and the number of each in its split, for messages; `left_out`
    rows are no examples by the task's `without`."""

    rows: "Dataset"
    numbers: Sequence[int]
    left_out: int = 0

    def only(self, places: Sequence[int]) -> "Part":
        """The part's rows at these places."""
        return Part(self.rows.select(places), [self.numbers[place] for place in places])


def name(dataset: DatasetConfig, role: str) -> str:
    """The split of a role, `train` or `eval`, without the slice of it that is used."""
    return dataset.splits[role].partition("[")[0]


def part(splits: "DatasetDict", task: TaskConfig, role: str, where: str) -> Part:
    """The rows of a role, `train` or `eval`. Raises UserError for a split or column that is not there."""
    dataset, where = task.dataset, f"{where}: {task.name}"
    named = _SLICE.fullmatch(dataset.splits[role])
    split = named["split"] if named else dataset.splits[role]
    if named is None or split not in splits:
        raise UserError(f"{where}: split {split} does not exist; there are {', '.join(splits)}")
    rows = splits[split]
    if not named[2] and not dataset.without:
        return Part(rows, range(len(rows)))
    numbers = list(range(len(rows)))[slice(*(int(n) if n else None for n in named.group(3, 4)))]
    within = len(numbers)
    for column, value in dataset.without.items():
        if column not in rows.column_names:
            hint = nearest(column, rows.column_names)
            raise UserError(f"{where}: {split} has no column {column}{hint}")
        values = list(rows[column])
        numbers = [number for number in numbers if values[number] != value]
    return Part(rows.select(numbers), numbers, within - len(numbers))
