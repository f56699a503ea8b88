"""Rows longer than `max_length`: the spec's `too_long` says whether they are dropped, cut or an error.

First each task shortens a row in its own way: it cuts the column `cut`, or the end of a text to classify.
Only a row that is still longer than `max_length` counts here as long. Rows that are scored are never dropped.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmark.data.settings import DataSettings
from benchmark.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Long:
    """The long rows among the rows of one use (training, held-out or evaluation).

    `where`: the source of the data. `numbers`: number of every row in its split. `needs`: for the index of
    each long row, the smallest max_length that fits it. `uncut`: indices of the rows whose answer alone is
    too long, so that cutting the prompt does not help.
    """

    where: str
    split: str
    training: bool
    numbers: Sequence[int]
    needs: Mapping[int, int] = dataclasses.field(default_factory=dict)
    uncut: frozenset[int] = frozenset()

    def left_out(self, settings: DataSettings) -> frozenset[int]:
        """The indices of the training rows that are dropped; empty for rows that are scored."""
        if not self.training:
            return frozenset()
        return frozenset(self.needs) if settings.too_long == "drop" else self.uncut

    def trained(self, settings: DataSettings) -> Sequence[int]:
        """The indices of the training rows that are not dropped."""
        dropped = self.left_out(settings)
        return [index for index in range(len(self.numbers)) if index not in dropped]

    def only(self, indices: frozenset[int]) -> "Long":
        """The same rows, but only those at `indices` count as long."""
        needs = {index: n for index, n in self.needs.items() if index in indices}
        return dataclasses.replace(self, needs=needs)

    def __str__(self) -> str:
        return f"{len(self.needs):,} of {len(self.numbers):,} rows of {self.split}"


@dataclass(frozen=True)
class Counts:
    """Numbers of long rows in a run.

    `train_dropped`, `train_cut`: training rows that are dropped, or whose prompt is cut. `eval_cut`:
    evaluation and held-out rows whose prompt is cut.
    """

    max_length: int
    train_dropped: int = 0
    train_cut: int = 0
    eval_cut: int = 0

    def __bool__(self) -> bool:
        return any((self.train_dropped, self.train_cut, self.eval_cut))

    def __str__(self) -> str:
        counts = {
            "training rows left out": self.train_dropped,
            "training prompts cut from the left": self.train_cut,
            "evaluation prompts cut from the left": self.eval_cut,
        }
        parts = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
        return f"longer than max_length {self.max_length}: {parts}"


def find(rows: Long, encoded: "Dataset", max_length: int) -> Long:
    """`rows` with its long rows filled in, from the columns `needs` and `truncated` of the encoded rows."""
    if "needs" not in encoded.column_names:
        return rows
    needs = {index: n for index, n in enumerate(encoded["needs"][:]) if n > max_length}
    cut = encoded["truncated"][:]
    uncut = frozenset(index for index in needs if not cut[index])
    return dataclasses.replace(rows, needs=needs, uncut=uncut)


def counts(parts: Sequence[Long], settings: DataSettings, task: str) -> Counts:
    """The numbers of rows dropped and cut, over all uses.

    Raises UserError if there are long rows and `too_long` is "error", if a scored row cannot be cut, and if
    all training rows are dropped. The message counts the rows and names the longest.
    """
    trained = [part for part in parts if part.training]
    scored = [part for part in parts if not part.training]
    if settings.too_long == "error":
        _refuse(parts, settings, task, "do not fit in")
    unreadable = [part.only(part.uncut) for part in scored]
    _refuse(unreadable, settings, task, "have an answer that leaves no room for a prompt in")
    dropped = [part.only(part.left_out(settings)) for part in trained]
    _refuse(
        [part for part in dropped if len(part.needs) == len(part.numbers)],
        settings,
        task,
        "do not fit in",
    )
    train_dropped = sum(len(part.needs) for part in dropped)
    return Counts(
        settings.max_length,
        train_dropped=train_dropped,
        train_cut=sum(len(part.needs) for part in trained) - train_dropped,
        eval_cut=sum(len(part.needs) for part in scored),
    )


def _refuse(parts: Sequence[Long], settings: DataSettings, task: str, why: str) -> None:
    """Raises UserError if `parts` have a long row; `why` stands in the message before max_length."""
    long = [part for part in parts if part.needs]
    if not long:
        return
    part = max(long, key=lambda part: max(part.needs.values()))
    index = max(part.needs, key=part.needs.__getitem__)
    raise UserError(
        f"{part.where}: {task}: {' and '.join(map(str, long))} {why} max_length {settings.max_length}; the "
        f"longest is row {part.numbers[index]} of {part.split}: max_length {part.needs[index]} holds all"
    )
