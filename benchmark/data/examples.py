"""The examples of one run: training, held-out and evaluation rows, drawn by seed and encoded.

Training rows and held-out rows never overlap (`drawing.py`).
"""

import hashlib
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from benchmark.data import drawing, overlap, sources, splits, tokenised, too_long
from benchmark.data.settings import DataSettings
from benchmark.data.sources import Read
from benchmark.errors import UserError
from benchmark.records.record import Overlap
from tasks.base import NUMBER, Adapter, TaskError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")
Columns = Mapping[str, list[Any]]


@dataclass(frozen=True)
class Rows:
    """The examples of one use (training, held-out or evaluation), in a fixed order.

    `encoded`: the model's features; None for the training rows of a run that trains nothing. `references`:
    one JSON value per example, as `Adapter.references` returns it. `ids`: a hash of each example. `split`:
    the name of the split.
    """

    encoded: "Dataset | None"
    references: list[Any]
    ids: list[str]
    split: str

    def only(self, indices: Sequence[int]) -> "Rows":
        """The examples at `indices`, in that order."""
        assert self.encoded is not None
        return Rows(
            self.encoded.select(indices),
            [self.references[index] for index in indices],
            [self.ids[index] for index in indices],
            self.split,
        )


@dataclass(frozen=True)
class Data:
    """All examples of a run. `development`: the held-out rows; None if none are held out.

    `revision`: the dataset's commit on the Hub, or both for two datasets; None for a mirror or twin.
    `fingerprint`: 12 hex digits of the SHA-256 of all example hashes.
    `read`: number of rows in the split of each role ("train", "eval").
    `truncated`: number of examples whose text was cut.
    `left_out`: number of rows that the task's `without` excludes.
    `set_aside`: number of rows of train used for nothing, because they share text with held-out rows.
    `long`: number of rows longer than max_length.
    `shown`: mean number of demonstrations before a prompt.
    `overlap_*`: shares of the scored examples that also occur in the training rows (or demonstrations).
    """

    train: Rows
    evaluation: Rows
    development: Rows | None
    revision: str | None
    fingerprint: str
    read: Mapping[str, int]
    truncated: int
    left_out: int
    set_aside: int
    long: too_long.Counts
    shown: float
    overlap_eval: Overlap
    overlap_dev: Overlap | None


def load(settings: DataSettings, adapter: Adapter, tokenizer: "PreTrainedTokenizerBase") -> Data:
    """Read, draw and encode the rows of one run. Sets `adapter.demonstrations`.

    Raises UserError for missing or unreadable data, for too few rows, and for a row that does not match the
    task's YAML.
    """
    task = adapter.config
    read = sources.read_all(task, settings.data)
    encoder = _Encoder(settings, adapter, tokenizer, read)
    raw = {role: splits.part(r.splits, task, role, r.where) for role, r in read.items()}
    parts = {role: encoder.arranged(part, role, role == "train") for role, part in raw.items()}
    if not len(parts["eval"].rows):
        raise UserError(
            f"{read['eval'].where}: {task.name}: no examples in {task.dataset.splits['eval']}"
        )
    where = read["train"].where
    drawn = drawing.draw(settings, parts["train"].rows, parts["eval"].rows, task, where)
    train, held_out = parts["train"].only(drawn.train), None
    evaluation = _evaluated(parts["eval"], settings)
    if drawn.held_out:
        held_out = parts["train"].only(drawn.held_out)
        # `arranged` has already made examples (blocks of text) of the rows of a language model task
        if parts["train"] is raw["train"]:
            held_out = encoder.arranged(held_out, "train", training=False)

    if settings.demonstrations > len(drawn.train):
        raise UserError(
            f"{where}: {task.name}: demonstrations {settings.demonstrations} are more than the "
            f"{len(drawn.train)} rows drawn from train"
        )
    trained, seen = encoder.trained(train) if settings.trains else encoder.demonstrated(train)
    scored = encoder.encoded(evaluation, "eval")
    development = encoder.encoded(held_out, "train", " (held out)") if held_out else None
    used = [part for part in (trained, scored, development) if part is not None]
    encoded = [part.encoded for part in used if part.encoded is not None]
    assert scored.encoded is not None
    shown = statistics.fmean(scored.encoded["shown"]) if settings.demonstrations else 0.0
    return Data(
        trained,
        scored,
        development,
        revision=" + ".join(dict.fromkeys(r.commit for r in read.values() if r.commit)) or None,
        fingerprint=hashlib.sha256("".join(i for p in used for i in p.ids).encode()).hexdigest()[
            :12
        ],
        read={role: len(r.splits[splits.name(task.dataset, role)]) for role, r in read.items()},
        truncated=sum(sum(part["truncated"][:]) for part in encoded),
        left_out=sum(part.left_out for part in raw.values()),
        set_aside=drawn.set_aside,
        long=too_long.counts(encoder.long, settings, task.name),
        shown=shown,
        overlap_eval=overlap.shared(evaluation.rows, seen.rows, task, read["eval"].where),
        overlap_dev=overlap.shared(held_out.rows, seen.rows, task, where) if held_out else None,
    )


def _evaluated(part: splits.Part, settings: DataSettings) -> splits.Part:
    """The examples of the evaluation split, or `eval_examples` of them: the same ones for every seed."""
    wanted, available = settings.eval_examples, len(part.rows)
    if wanted is None or wanted >= available:
        return part
    return part.only(drawing.permutation(available, 0)[:wanted])


class _Encoder:
    """Applies the adapter to parts of splits. `long`: the rows longer than max_length, one entry per use."""

    def __init__(
        self,
        settings: DataSettings,
        adapter: Adapter,
        tokenizer: "PreTrainedTokenizerBase",
        read: Mapping[str, Read],
    ) -> None:
        self.long: list[too_long.Long] = []
        self._settings, self._adapter, self._tokenizer = settings, adapter, tokenizer
        self._read = read

    def arranged(self, part: splits.Part, role: str, training: bool) -> splits.Part:
        """The examples of a part. An example may be made of several rows, or of a piece of one."""
        from datasets import Dataset

        # lazy columns: a column is read only if the adapter reads it
        columns = {name: part.rows[name] for name in part.rows.column_names}
        try:
            columns_of_examples = self._adapter.arrange(
                columns, training, self._tokenizer, self._settings.max_length
            )
        except TaskError as error:
            raise self._named(error, part, role) from None
        if columns_of_examples is None:
            return part
        arranged = dict(columns_of_examples)
        firsts = arranged.pop(NUMBER, None)
        rows = Dataset.from_dict(arranged)
        numbers = range(len(rows)) if firsts is None else [part.numbers[first] for first in firsts]
        return splits.Part(rows, numbers, part.left_out)

    def trained(self, part: splits.Part) -> tuple[Rows, splits.Part]:
        """The rows to train on, encoded and raw: the part without the rows that are too long."""
        rows = self.encoded(part, "train")
        indices = self.long[-1].trained(self._settings)
        return rows.only(indices), part.only(indices)

    def demonstrated(self, part: splits.Part) -> tuple[Rows, splits.Part]:
        """For a run that trains nothing: the drawn rows, not encoded, and the demonstrations among them.

        Sets `adapter.demonstrations`.
        """
        demonstrations = part.only(range(self._settings.demonstrations))
        if self._settings.demonstrations:
            self._adapter.demonstrations = self._used(
                demonstrations, "train", self._adapter.demonstrated
            )
        ids = self._used(part, "train", _example_ids)
        return Rows(None, [], ids, self._adapter.config.dataset.splits["train"]), demonstrations

    def encoded(self, part: splits.Part, role: str, note: str = "") -> Rows:
        """The part as features of the model. `note`: suffix of the split's name, empty for training rows."""
        adapter, limit = self._adapter, self._settings.max_length
        split, training = adapter.config.dataset.splits[role] + note, role == "train" and not note

        def encode(columns: Columns) -> tuple[Rows, "Dataset"]:
            ids = _example_ids(columns)
            features = tokenised.encoded(adapter, columns, ids, self._tokenizer, limit, training)
            return Rows(features, adapter.references(columns), ids, split), features

        rows, features = self._used(part, role, encode)
        long = too_long.Long(self._read[role].where, split, training, part.numbers)
        self.long.append(too_long.find(long, features, limit))
        return rows

    def _used(self, part: splits.Part, role: str, make: Callable[[Columns], T]) -> T:
        """The result of `make` for the part's columns. Raises UserError for its TaskErrors (see `_named`)."""
        try:
            return make({name: part.rows[name][:] for name in part.rows.column_names})
        except TaskError as error:
            raise self._named(error, part, role) from None

    def _named(self, error: TaskError, part: splits.Part, role: str) -> UserError:
        """The error as a UserError that names the data's source and the row's number in the split."""
        split = splits.name(self._adapter.config.dataset, role)
        at = "" if error.row is None else f" row {part.numbers[error.row]} of {split}:"
        return UserError(f"{self._read[role].where}:{at} {error.reason}")


def _example_ids(columns: Columns) -> list[str]:
    """A hash of each row's content without `idx`: 16 hex digits, the same for equal rows of two sources."""
    names = [name for name in columns if name != "idx"]
    ids = []
    for values in zip(*(columns[name] for name in names), strict=True):
        text = json.dumps(dict(zip(names, values, strict=True)), sort_keys=True, default=str)
        ids.append(hashlib.sha256(text.encode()).hexdigest()[:16])
    return ids
