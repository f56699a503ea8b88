"""Rows that `max_length` does not hold: left out, cut or refused by `too_long`, and counted.

A task's own way of shortening (a column `cut`, the end of a text to classify) comes first: rows that it fits
are none of these. Rows that are scored are never left out.
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
    """The long ones among the rows of one use.

    `where` the data is; `numbers`: of all rows, in their split. `needs`: the place of each long row, and the
    least max_length that holds it. `uncut`: places of those that no cut makes fit, as the answer alone is too
    long.
    """

    where: str
    split: str
    training: bool
    numbers: Sequence[int]
    needs: Mapping[int, int] = dataclasses.field(default_factory=dict)
    uncut: frozenset[int] = frozenset()

    def left_out(self, settings: DataSettings) -> frozenset[int]:
        """The places of the rows that do not train."""
        if not self.training:
            return frozenset()
        return frozenset(self.needs) if settings.too_long == "drop" else self.uncut

    def kept(self, settings: DataSettings) -> Sequence[int]:
        """The places of the others."""
        gone = self.left_out(settings)
        return [place for place in range(len(self.numbers)) if place not in gone]

    def only(self, places: frozenset[int]) -> "Long":
        """The same rows, those at `places` alone counted as long."""
        needs = {place: n for place, n in self.needs.items() if place in places}
        return dataclasses.replace(self, needs=needs)

    def __str__(self) -> str:
        return f"{len(self.needs):,} of {len(self.numbers):,} rows of {self.split}"


@dataclass(frozen=True)
class Counts:
    """Long rows of a run: training rows left out and cut, and cut ones that are scored, be it on the
    evaluation split or on the slice held out of train."""

    max_length: int
    train_dropped: int = 0
    train_cut: int = 0
    eval_cut: int = 0

    def __bool__(self) -> bool:
        return any((self.train_dropped, self.train_cut, self.eval_cut))

    def __str__(self) -> str:
        found = {
            "training rows left out": self.train_dropped,
            "training prompts cut from the left": self.train_cut,
            "evaluation prompts cut from the left": self.eval_cut,
        }
        said = ", ".join(f"{count:,} {what}" for what, count in found.items() if count)
        return f"longer than max_length {self.max_length}: {said}"


def find(rows: Long, encoded: "Dataset", max_length: int) -> Long:
    """`rows` with the long ones among them, from what the adapter made of each."""
    if "needs" not in encoded.column_names:
        return rows
    needs = {place: n for place, n in enumerate(encoded["needs"]) if n > max_length}
    cut = encoded["truncated"]
    uncut = frozenset(place for place in needs if not cut[place])
    return dataclasses.replace(rows, needs=needs, uncut=uncut)


def counts(found: Sequence[Long], settings: DataSettings, task: str) -> Counts:
    """How many rows are left out and cut.

    Raises UserError where `too_long: error` allows neither, where a row that is scored cannot be cut, and
    where no row is left to train on. It counts the rows and names the longest.
    """
    trained = [part for part in found if part.training]
    scored = [part for part in found if not part.training]
    if settings.too_long == "error":
        _refuse(found, settings, task, "do not fit in")
    unreadable = [part.only(part.uncut) for part in scored]
    _refuse(unreadable, settings, task, "have an answer that leaves no room for a prompt in")
    gone = [part.only(part.left_out(settings)) for part in trained]
    _refuse(
        [part for part in gone if len(part.needs) == len(part.numbers)],
        settings,
        task,
        "do not fit in",
    )
    dropped = sum(len(part.needs) for part in gone)
    return Counts(
        settings.max_length,
        train_dropped=dropped,
        train_cut=sum(len(part.needs) for part in trained) - dropped,
        eval_cut=sum(len(part.needs) for part in scored),
    )


def _refuse(found: Sequence[Long], settings: DataSettings, task: str, why: str) -> None:
    """Raise UserError where one of the rows is long."""
    long = [part for part in found if part.needs]
    if not long:
        return
    part = max(long, key=lambda part: max(part.needs.values()))
    place = max(part.needs, key=part.needs.__getitem__)
    raise UserError(
        f"{part.where}: {task}: {' and '.join(map(str, long))} {why} max_length {settings.max_length}; the "
        f"longest is row {part.numbers[place]} of {part.split}: max_length {part.needs[place]} holds all"
    )
