"""Which rows of a dataset a run uses: slices of splits, rows that are no examples, and the draw by seed."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError, nearest
from benchmark.spec import RunSpec
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


def permutation(n: int, seed: int) -> list[int]:
    """0 to n - 1, shuffled by `seed`."""
    import numpy as np

    return np.random.default_rng(seed).permutation(n).tolist()


def draw(
    spec: RunSpec, rows: "Dataset", dataset: DatasetConfig, where: str
) -> tuple[list[int], list[int]]:
    """Indices into the rows of train: training and held-out slice, disjoint, drawn by the run's seed.

    With `shots` both hold equally many rows of each class, in shuffled order. Raises UserError where there
    are too few rows.
    """
    order = permutation(len(rows), spec.seed)
    if dataset.shots is not None:
        return _few(spec, order, rows, dataset, where)
    held_out, rest = order[: spec.dev_examples], order[spec.dev_examples :]
    wanted = len(rest) if spec.train_examples is None else spec.train_examples
    if wanted > len(rest) or not rest:
        raise UserError(
            f"{where}: {spec.task}: train_examples {wanted} and dev_examples {spec.dev_examples} are more "
            f"than the {len(rows)} examples of {dataset.splits['train']}"
        )
    return rest[:wanted], held_out


def _few(
    spec: RunSpec, order: list[int], rows: "Dataset", dataset: DatasetConfig, where: str
) -> tuple[list[int], list[int]]:
    shots, split = dataset.shots, dataset.splits["train"]
    assert shots is not None
    if shots.per not in rows.column_names:
        hint = nearest(shots.per, rows.column_names)
        raise UserError(f"{where}: {spec.task}: {split} has no column {shots.per}{hint}")
    labels = list(rows[shots.per])
    by_class: dict[Any, list[int]] = {label: [] for label in labels}
    for index in order:
        by_class[labels[index]].append(index)
    if len(by_class) < math.ceil(dataset.sizes["train"] / shots.count):
        there = ", ".join(map(str, by_class))
        raise UserError(
            f"{where}: {spec.task}: column {shots.per}: {split} has no class but {there}, "
            f"too few for {dataset.sizes['train']} rows of {shots.count} each"
        )
    held_out, left_over = divmod(spec.dev_examples, len(by_class))
    if spec.train_examples is not None or left_over:
        raise UserError(
            f"{spec.task}: takes {shots.count} rows of each of {len(by_class)} classes: give no "
            f"train_examples, and dev_examples as a multiple of {len(by_class)}"
        )
    wanted = shots.count + held_out
    for label, found in by_class.items():
        if len(found) < wanted and label not in shots.all_of:
            raise UserError(
                f"{where}: {spec.task}: column {shots.per}: class {label} has {len(found)} rows of "
                f"{split}, fewer than the {wanted} wanted"
            )
    train = {i for found in by_class.values() for i in found[: shots.count]}
    development = {i for found in by_class.values() for i in found[shots.count : wanted]}
    return [i for i in order if i in train], [i for i in order if i in development]
