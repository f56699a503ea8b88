"""The order in which encoded rows become batches, in training and in evaluation.

A block-wise method updates its groups in a fixed cycle of steps, so no order may be periodic: each group
would see its own kind of batch.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, RandomSampler, Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler

from benchmark.data.examples import Rows
from benchmark.records.spec import RunSpec

if TYPE_CHECKING:
    from datasets import Dataset


class GroupedByLength(Sampler[list[int]]):
    """Batches of rows of like length, in random order.

    transformers' sampler sorts the rows within every 50 batches and leaves these in that order, a sawtooth:
    under HiFT's cycle of 8 groups one group saw 10 tokens a row on average and another 21. So whole batches
    are shuffled once more.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> None:
        self._rows = LengthGroupedSampler(batch_size, lengths=list(lengths), generator=generator)
        self._batch_size = batch_size
        self._generator = generator

    def __len__(self) -> int:
        return math.ceil(len(self._rows) / self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        batches = _cut(list(self._rows), self._batch_size)
        for place in torch.randperm(len(batches), generator=self._generator).tolist():
            yield batches[place]


def training_batches(rows: Rows, collate: Any, spec: RunSpec) -> "DataLoader[Any]":
    """Shuffled by the seed with a generator of its own, so every strategy sees the same batches.

    `group_by_length` puts rows of like length together, which on short texts saves half of the padding.
    """
    generator = torch.Generator().manual_seed(spec.seed)
    features = _features(rows)
    if spec.group_by_length:
        sampler = GroupedByLength(_lengths(rows), spec.batch_size, generator)
        return DataLoader(features, batch_sampler=sampler, collate_fn=collate)
    shuffled = RandomSampler(rows.ids, generator=generator)
    return DataLoader(features, spec.batch_size, sampler=shuffled, collate_fn=collate)


class EvaluationOrder:
    """The batches in which rows are scored: longest first, so that padding is least and memory peaks in the
    first batch; of equal lengths in the order of the rows."""

    def __init__(self, rows: Rows, batch_size: int) -> None:
        self._rows = rows
        lengths = _lengths(rows)
        self._order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
        self._batches = _cut(self._order, batch_size)

    def ids(self) -> list[list[str]]:
        """The hashes of each batch's examples."""
        return [[self._rows.ids[index] for index in batch] for batch in self._batches]

    def batches(self, collate: Any, start: int = 0) -> "DataLoader[Any]":
        """The batches from number `start` on."""
        features = _features(self._rows)
        return DataLoader(features, batch_sampler=self._batches[start:], collate_fn=collate)

    def in_row_order(self, predictions: list[Any]) -> list[Any]:
        """Predictions in the order of the batches, put into the order of the rows."""
        placed = dict(zip(self._order, predictions, strict=True))
        return [placed[index] for index in range(len(self._order))]


def batches_as_drawn(rows: Rows, collate: Any, batch_size: int) -> "DataLoader[Any]":
    """Batches in the order of the rows. That order was drawn at random, so the batches are alike."""
    return DataLoader(_features(rows), batch_size, collate_fn=collate)


def _cut(order: list[int], size: int) -> list[list[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def _features(rows: Rows) -> "Dataset":
    """What the collator reads, without what is only counted."""
    assert rows.encoded is not None
    counted = {"truncated", "needs", "shown"} & set(rows.encoded.column_names)
    return rows.encoded.remove_columns(sorted(counted))


def _lengths(rows: Rows) -> list[int]:
    """The length of each example's input, of the longest where it has several."""
    assert rows.encoded is not None
    return [
        max(map(len, ids)) if ids and isinstance(ids[0], list) else len(ids)
        for ids in rows.encoded["input_ids"]
    ]
