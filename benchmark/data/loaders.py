"""The order of the examples and their batches, in training and in evaluation.

HiFT updates its groups in a fixed cycle of steps. If the order of the batches were periodic, some groups
would always see short batches and others long ones. So no order in training is periodic.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler

from benchmark.data.examples import Rows
from benchmark.records.spec import RunSpec

if TYPE_CHECKING:
    from datasets import Dataset


class GroupedByLength(Sampler[list[int]]):
    """Batches of examples of similar length, in random order.

    transformers' LengthGroupedSampler sorts the examples within every 50 batches by length, so lengths rise
    and fall periodically. With HiFT's cycle of 8 groups, one group saw 10 tokens per example on average and
    another 21. This sampler therefore shuffles the batches once more.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> None:
        self._rows = LengthGroupedSampler(batch_size, lengths=list(lengths), generator=generator)
        self._batch_size = batch_size
        self._generator = generator

    def __len__(self) -> int:
        return math.ceil(len(self._rows) / self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        batches = _cut(list(self._rows), self._batch_size)
        for number in torch.randperm(len(batches), generator=self._generator).tolist():
            yield batches[number]


class Idle(dict[str, torch.Tensor]):
    """A batch for a rank whose part of the batch is empty: of another rank's example, to keep in step."""

    idle = True


class Part:
    """What rank `number` of `of` trains on of each batch: every so manyth example."""

    def __init__(self, number: int = 0, of: int = 1) -> None:
        self._number, self._of = number, of
        self._is_empty = False

    def of_batch(self, batch: list[int]) -> list[int]:
        """The examples of this rank; one of another's where there are none."""
        own = batch[self._number :: self._of]
        self._is_empty = not own
        return own or batch[:1]

    def collator(self, collate: Any) -> Any:
        """`collate` for the batches of `of_batch`, none of which is read ahead."""

        def collated(features: list[dict[str, Any]]) -> Any:
            batch = collate(features)
            return Idle(batch) if self._is_empty else batch

        return collate if self._of == 1 else collated


WHOLE = Part()


class Resumable(Sampler[list[int]]):
    """One `part` of the batches of a sampler that draws from `generator`, and the position among them.

    The position is that of the last batch asked for, so no worker process may read ahead.
    """

    def __init__(
        self, batches: Sampler[list[int]], generator: torch.Generator, part: Part = WHOLE
    ) -> None:
        self._batches, self._generator, self._part = batches, generator, part
        self._began, self._done, self._skip = generator.get_state(), 0, 0

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        skip, self._skip = self._skip, 0
        self._began, self._done = self._generator.get_state(), 0
        for batch in self._batches:
            self._done += 1
            if self._done > skip:
                yield self._part.of_batch(batch)

    def state_dict(self) -> dict[str, Any]:
        """The state of the generator where an epoch begins, and the batches of it that are done."""
        if self._done == len(self):
            return {"generator": self._generator.get_state(), "done": 0}
        return {"generator": self._began, "done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next epoch begin at the position of a `state_dict()`."""
        self._generator.set_state(state["generator"])
        self._skip = state["done"]


class TrainingBatches(DataLoader[Any]):
    """A DataLoader that a loop can resume within an epoch, by the protocol of Lightning."""

    batch_sampler: Resumable

    def state_dict(self) -> dict[str, Any]:
        return self.batch_sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batch_sampler.load_state_dict(state)


def training_batches(
    rows: Rows, collate: Any, spec: RunSpec, part: Part = WHOLE
) -> TrainingBatches:
    """Training batches, shuffled with a generator seeded by the spec, so every strategy sees the same ones;
    of each batch the `part` of one rank.

    `group_by_length` puts examples of similar length together, which saves half of the padding on short
    texts.
    """
    generator = torch.Generator().manual_seed(spec.seed)
    batches: Sampler[list[int]]
    if spec.group_by_length:
        batches = GroupedByLength(_lengths(rows), spec.batch_size, generator)
    else:
        shuffled = RandomSampler(rows.ids, generator=generator)
        batches = BatchSampler(shuffled, spec.batch_size, drop_last=False)
    sampler = Resumable(batches, generator, part)
    collated = part.collator(collate)
    return TrainingBatches(_features(rows), batch_sampler=sampler, collate_fn=collated)


class EvaluationOrder:
    """The order of the examples in an evaluation: by input length, longest first, ties in the order of
    `rows`.

    This needs the least padding, and the memory peak is in the first batch.
    """

    def __init__(self, rows: Rows, batch_size: int) -> None:
        self._rows = rows
        lengths = _lengths(rows)
        self._order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
        self._batches = _cut(self._order, batch_size)

    def ids(self) -> list[list[str]]:
        """The example hashes of each batch."""
        return [[self._rows.ids[index] for index in batch] for batch in self._batches]

    def batches(self, collate: Any, start: int = 0) -> "DataLoader[Any]":
        """The batches, without the first `start`."""
        features = _features(self._rows)
        return DataLoader(features, batch_sampler=self._batches[start:], collate_fn=collate)

    def in_row_order(self, predictions: list[Any]) -> list[Any]:
        """`predictions`, given in the order of the batches, in the order of the rows."""
        by_index = dict(zip(self._order, predictions, strict=True))
        return [by_index[index] for index in range(len(self._order))]


def batches_as_drawn(rows: Rows, collate: Any, batch_size: int) -> "DataLoader[Any]":
    """Batches in the order of the rows. That order is random, so the batches are a random partition."""
    return DataLoader(_features(rows), batch_size, collate_fn=collate)


def _cut(order: list[int], size: int) -> list[list[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def _features(rows: Rows) -> "Dataset":
    """The columns that the collator reads. Columns that are only counted are dropped."""
    assert rows.encoded is not None
    counted = {"truncated", "needs", "shown"} & set(rows.encoded.column_names)
    return rows.encoded.remove_columns(sorted(counted))


def _lengths(rows: Rows) -> list[int]:
    """The number of tokens of each example's input, or of its longest input if it has several."""
    assert rows.encoded is not None
    return [
        max(map(len, ids)) if ids and isinstance(ids[0], list) else len(ids)
        for ids in rows.encoded["input_ids"][:]
    ]
