"""What a run gets of a task's rows: those it trains on and those it is scored on, drawn by seed and encoded.

The held-out slice and the training rows never overlap (`drawing.py`).
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
    """Raw rows of one use: `encoded` has the model's features (None for training rows of a run that trains
    nothing), `ids` a hash per example."""

    encoded: "Dataset | None"
    references: list[Any]
    ids: list[str]
    split: str

    def only(self, places: Sequence[int]) -> "Rows":
        """Those at the `places`, in that order."""
        assert self.encoded is not None
        return Rows(
            self.encoded.select(places),
            [self.references[place] for place in places],
            [self.ids[place] for place in places],
            self.split,
        )


@dataclass(frozen=True)
class Data:
    """What a run trains and is scored on; `development` is None unless a slice was held out.

    `revision`: the commit on the Hub (two where there are two datasets); None for a mirror or twin.
    `read`: rows of each role's split as it lies in the source. `truncated`: examples whose text was cut.
    `left_out`: rows that are no examples. `set_aside`: rows of train that neither train nor are held out, as
    they share text with held-out ones. `long`: those that max_length does not hold. `shown`: demonstrations
    before a prompt, the mean over examples. `overlap_*`: what the scored examples share with the rows that
    train, or are shown.
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
    """Read, draw and encode the rows of one run, and give the adapter its demonstrations.

    Raises UserError for missing or unreadable data, too few rows and rows that the task cannot use.
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
        if parts["train"] is raw["train"]:  # else they are examples already, as blocks of a text
            held_out = encoder.arranged(held_out, "train", training=False)

    if settings.demonstrations > len(drawn.train):
        raise UserError(
            f"{where}: {task.name}: demonstrations {settings.demonstrations} are more than the "
            f"{len(drawn.train)} rows drawn from train"
        )
    trained, learnt = encoder.trained(train) if settings.trains else encoder.shown(train)
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
        truncated=sum(sum(part["truncated"]) for part in encoded),
        left_out=sum(part.left_out for part in raw.values()),
        set_aside=drawn.set_aside,
        long=too_long.counts(encoder.long, settings, task.name),
        shown=shown,
        overlap_eval=overlap.shared(evaluation.rows, learnt.rows, task, read["eval"].where),
        overlap_dev=overlap.shared(held_out.rows, learnt.rows, task, where) if held_out else None,
    )


def _evaluated(part: splits.Part, settings: DataSettings) -> splits.Part:
    """All examples of the evaluation split, or the same `eval_examples` of them for every seed."""
    wanted, there = settings.eval_examples, len(part.rows)
    if wanted is None or wanted >= there:
        return part
    return part.only(drawing.permutation(there, 0)[:wanted])


class _Encoder:
    """Makes of parts of splits what the adapter makes of them; `long` has the long rows of each use."""

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
        """The part's examples, where the task makes them of several rows, or of pieces of one."""
        from datasets import Dataset

        columns = {
            name: part.rows[name] for name in part.rows.column_names
        }  # each read when asked for
        try:
            made = self._adapter.arrange(
                columns, training, self._tokenizer, self._settings.max_length
            )
        except TaskError as error:
            raise self._named(error, part, role) from None
        if made is None:
            return part
        arranged = dict(made)
        firsts = arranged.pop(NUMBER, None)
        rows = Dataset.from_dict(arranged)
        numbers = range(len(rows)) if firsts is None else [part.numbers[first] for first in firsts]
        return splits.Part(rows, numbers, part.left_out)

    def trained(self, part: splits.Part) -> tuple[Rows, splits.Part]:
        """The training rows less those that are too long, encoded and raw."""
        rows = self.encoded(part, "train")
        kept = self.long[-1].kept(self._settings)
        return rows.only(kept), part.only(kept)

    def shown(self, part: splits.Part) -> tuple[Rows, splits.Part]:
        """Of a run that trains nothing: the rows drawn, not encoded, and those of them that are its
        demonstrations, which the adapter gets."""
        demonstrations = part.only(range(self._settings.demonstrations))
        if self._settings.demonstrations:
            self._adapter.demonstrations = self._used(
                demonstrations, "train", self._adapter.demonstrated
            )
        ids = self._used(part, "train", _example_ids)
        return Rows(None, [], ids, self._adapter.config.dataset.splits["train"]), demonstrations

    def encoded(self, part: splits.Part, role: str, note: str = "") -> Rows:
        """The model's features of the part; `note` says what of the split it is, if it does not train."""
        adapter, limit = self._adapter, self._settings.max_length
        split, training = adapter.config.dataset.splits[role] + note, role == "train" and not note

        def encode(columns: Columns) -> tuple[Rows, "Dataset"]:
            ids = _example_ids(columns)
            made = tokenised.encoded(adapter, columns, ids, self._tokenizer, limit, training)
            return Rows(made, adapter.references(columns), ids, split), made

        rows, made = self._used(part, role, encode)
        long = too_long.Long(self._read[role].where, split, training, part.numbers)
        self.long.append(too_long.find(long, made, limit))
        return rows

    def _used(self, part: splits.Part, role: str, make: Callable[[Columns], T]) -> T:
        """What `make` makes of the rows; one that it cannot use is named by its number in the split."""
        try:
            return make({name: list(part.rows[name]) for name in part.rows.column_names})
        except TaskError as error:
            raise self._named(error, part, role) from None

    def _named(self, error: TaskError, part: splits.Part, role: str) -> UserError:
        """The error with the place of the data, and the number of its row in the split."""
        split = splits.name(self._adapter.config.dataset, role)
        at = "" if error.row is None else f" row {part.numbers[error.row]} of {split}:"
        return UserError(f"{self._read[role].where}:{at} {error.reason}")


def _example_ids(columns: Columns) -> list[str]:
    """16 hex digits over a row's content, the same from every source that holds the same row."""
    names = [name for name in columns if name != "idx"]
    ids = []
    for values in zip(*(columns[name] for name in names), strict=True):
        text = json.dumps(dict(zip(names, values, strict=True)), sort_keys=True, default=str)
        ids.append(hashlib.sha256(text.encode()).hexdigest()[:16])
    return ids
