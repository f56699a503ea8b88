"""A task's rows from the Hub, a mirror folder or the twin -> encoded training and evaluation data.

The source is chosen, recorded and never falls back by itself. A twin is a mirror whose content is generated.
Rows are drawn by seed (`drawing.py`); the held-out slice and the training rows never overlap.
"""

import hashlib
import json
import os
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmark.cache import cache_folder
from benchmark.data import drawing, overlap, splits, tokenised, too_long
from benchmark.errors import UserError
from benchmark.records.record import Overlap
from benchmark.records.spec import RunSpec
from tasks.base import NUMBER, Adapter, TaskConfig, TaskError
from tasks.dataset import Origin

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from transformers import PreTrainedTokenizerBase

ROOT_VARIABLE = "HIFT_DATA_ROOT"
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


class Read(NamedTuple):
    """A dataset as it lies in its source: a folder, or an id on the Hub and the commit read."""

    where: str
    splits: "DatasetDict"
    commit: str | None


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


def mirror_root() -> Path | None:
    """The folder that HIFT_DATA_ROOT (or --data-root, which sets it) names."""
    root = os.environ.get(ROOT_VARIABLE)
    return Path(root) if root else None


def check(task: TaskConfig, source: str) -> None:
    """Refuse, before anything runs, a mirror without the dataset or with a damaged file."""
    if source != "mirror":
        return
    for origin in task.dataset.origins.values():
        _check(task, origin)


def _check(task: TaskConfig, origin: Origin) -> None:
    folder = _folder(task, origin, "mirror")
    files = sorted(folder.glob(f"{origin.config}/**/*.parquet"))
    if not files:
        raise UserError(f"{folder}: no parquet files of config {origin.config} for {task.name}")
    for path in files:
        with open(path, "rb") as file:
            head = file.read(4)
            file.seek(-min(4, path.stat().st_size), os.SEEK_END)
            if head != b"PAR1" or file.read(4) != b"PAR1":
                raise UserError(f"{path}: damaged or cut short: not a whole parquet file")


def load(spec: RunSpec, adapter: Adapter, tokenizer: "PreTrainedTokenizerBase") -> Data:
    """Read, draw and encode the rows of one run, and give the adapter its demonstrations.

    Raises UserError for missing or unreadable data, too few rows and rows that the task cannot use.
    """
    task = adapter.config
    dataset, found = task.dataset, _read_all(task, spec.data)
    commits = dict.fromkeys(read.commit for read in found.values() if read.commit)

    def arranged(part: splits.Part, role: str, training: bool) -> splits.Part:
        return _arranged(part, role, training, found[role].where, adapter, tokenizer, spec)

    raw = {role: splits.part(r.splits, task, role, r.where) for role, r in found.items()}
    parts = {role: arranged(part, role, role == "train") for role, part in raw.items()}
    n_eval = len(parts["eval"].rows)
    if not n_eval:
        split = dataset.splits["eval"]
        raise UserError(f"{found['eval'].where}: {spec.task}: no examples in {split}")
    where = found["train"].where
    drawn = drawing.draw(spec, parts["train"].rows, parts["eval"].rows, task, where)
    train, evaluation, held_out = parts["train"].only(drawn.train), parts["eval"], None
    if spec.eval_examples is not None and spec.eval_examples < n_eval:
        evaluation = evaluation.only(drawing.permutation(n_eval, 0)[: spec.eval_examples])
    if drawn.held_out:
        held_out = parts["train"].only(drawn.held_out)
        if parts["train"] is raw["train"]:  # else they are examples already, as blocks of a text
            held_out = arranged(held_out, "train", training=False)

    def use(part: splits.Part, role: str, make: Callable[[Columns], Any]) -> Any:
        """What `make` makes of the rows; one that it cannot use is named by its number in the split."""
        try:
            return make({name: list(part.rows[name]) for name in part.rows.column_names})
        except TaskError as error:
            raise _named(error, part.numbers, role, found[role].where, task) from None

    long: list[too_long.Long] = []

    def encoded_rows(part: splits.Part, role: str, note: str = "") -> Rows:
        name, training = dataset.splits[role] + note, role == "train" and not note

        def encode(columns: Columns) -> Rows:
            return _encode(columns, name, adapter, tokenizer, spec.max_length, training)

        made: Rows = use(part, role, encode)
        rows = too_long.Long(found[role][0], name, training, part.numbers)
        long.append(too_long.find(rows, made.encoded, spec.max_length))
        return made

    if spec.demonstrations > len(drawn.train):
        raise UserError(
            f"{where}: {spec.task}: demonstrations {spec.demonstrations} are more than the "
            f"{len(drawn.train)} rows drawn from train"
        )
    if spec.lr is None:
        learnt = train.only(range(spec.demonstrations))
        if spec.demonstrations:
            adapter.demonstrations = use(learnt, "train", adapter.demonstrated)
        trained = Rows(None, [], use(train, "train", _example_ids), dataset.splits["train"])
    else:
        trained = encoded_rows(train, "train")
        kept = long[-1].kept(spec)
        trained, learnt = trained.only(kept), train.only(kept)
    data = (
        trained,
        encoded_rows(evaluation, "eval"),
        encoded_rows(held_out, "train", " (held out)") if held_out else None,
    )
    ids = "".join(i for part in data if part is not None for i in part.ids)
    encoded = [part.encoded for part in data if part is not None and part.encoded is not None]
    return Data(
        *data,
        revision=" + ".join(commits) or None,
        fingerprint=hashlib.sha256(ids.encode()).hexdigest()[:12],
        read={role: len(r.splits[splits.name(dataset, role)]) for role, r in found.items()},
        truncated=sum(sum(part["truncated"]) for part in encoded),
        left_out=sum(part.left_out for part in raw.values()),
        set_aside=drawn.set_aside,
        long=too_long.counts(long, spec),
        shown=statistics.fmean(data[1].encoded["shown"]) if spec.demonstrations else 0.0,
        overlap_eval=overlap.shared(evaluation.rows, learnt.rows, task, found["eval"][0]),
        overlap_dev=held_out and overlap.shared(held_out.rows, learnt.rows, task, where),
    )


def _folder(task: TaskConfig, origin: Origin, source: str) -> Path:
    """The folder in the Hub's layout that holds the dataset. Raises UserError where it is not there."""
    if source == "twin":
        from benchmark.twin import data as twin

        root = cache_folder(f"twin-data-{twin.VERSION}")
        return twin.build(origin.id, origin.config, root)
    root = mirror_root()
    if root is None:
        raise UserError(
            f"{task.name}: data: mirror needs a folder laid out like the Hub: --data-root or {ROOT_VARIABLE}"
        )
    folder = root / origin.id
    if not folder.is_dir():
        there = sorted(str(p.relative_to(root)) for p in root.glob("*/*") if p.is_dir())
        raise UserError(
            f"{root}: has no dataset {origin.id}, which {task.name} needs; "
            f"it has {', '.join(there) or 'none'}"
        )
    return folder


def _read_all(task: TaskConfig, source: str) -> dict[str, Read]:
    """What `_read` gives for each role; a dataset that serves both is read once."""
    train, evaluation = task.dataset.origins.values()
    found = _read(task, train, source)
    return {
        "train": found,
        "eval": found if evaluation is train else _read(task, evaluation, source),
    }


def _read(task: TaskConfig, origin: Origin, source: str) -> Read:
    """The whole dataset. Raises UserError where it cannot be read, or not at the commit that is pinned."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    if source == "hub":
        # the address, as a folder of the dataset's name in the current one would go before the Hub
        where, path, arguments = (
            origin.id,
            f"hf://datasets/{origin.id}",
            {"revision": origin.revision},
        )
    else:
        if source == "mirror":
            _check(task, origin)
        where = path = str(_folder(task, origin, source).resolve())
        arguments = {"cache_dir": _cache_of(Path(path))}

    def read() -> tuple["DatasetDict", str]:
        builder = datasets.load_dataset_builder(path, origin.config, **arguments)
        builder.download_and_prepare()
        return builder.as_dataset(), str(builder.hash)

    try:
        try:
            found, commit = read()
        except Exception:
            if source == "hub":
                raise
            shutil.rmtree(arguments["cache_dir"], ignore_errors=True)  # it may be what is damaged
            found, commit = read()
    except Exception as error:  # whatever the reader's libraries raise, it is the data that is bad
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        hint = (
            "; no network? data: mirror with --data-root, or data: twin" if source == "hub" else ""
        )
        raise UserError(f"{where}: {task.name} cannot be read: {reason}{hint}") from error
    if source != "hub":
        return Read(where, found, None)
    if origin.pinned and commit != origin.revision:
        # without network, datasets takes the latest that is in its cache, of whatever commit
        raise UserError(
            f"{where}: {task.name} is pinned to commit {origin.revision}, and what can be read here, without "
            f"the Hub, is {commit}"
        )
    return Read(where, found, commit)


def _cache_of(folder: Path) -> str:
    """A cache for these very files: the key that datasets gives a local folder is its README's header, so
    it would serve the rows of another folder, or those a file held before it was put right."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stamps = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return str(cache_folder("datasets") / hashlib.sha256(repr(stamps).encode()).hexdigest()[:16])


def _arranged(
    part: splits.Part,
    role: str,
    training: bool,
    where: str,
    adapter: Adapter,
    tokenizer: "PreTrainedTokenizerBase",
    spec: RunSpec,
) -> splits.Part:
    """The part's examples, where the task makes them of several rows, or of pieces of one."""
    from datasets import Dataset

    columns = {name: part.rows[name] for name in part.rows.column_names}  # each read when asked for
    try:
        made = adapter.arrange(columns, training, tokenizer, spec.max_length)
    except TaskError as error:
        raise _named(error, part.numbers, role, where, adapter.config) from None
    if made is None:
        return part
    arranged = dict(made)
    firsts = arranged.pop(NUMBER, None)
    rows = Dataset.from_dict(arranged)
    numbers = range(len(rows)) if firsts is None else [part.numbers[first] for first in firsts]
    return splits.Part(rows, numbers, part.left_out)


def _named(
    error: TaskError, numbers: Sequence[int], role: str, where: str, task: TaskConfig
) -> UserError:
    """The error with the place of the data, and the `numbers` of its row in the split."""
    split = splits.name(task.dataset, role)
    at = "" if error.row is None else f" row {numbers[error.row]} of {split}:"
    return UserError(f"{where}:{at} {error.reason}")


def _encode(
    columns: Columns,
    split: str,
    adapter: Adapter,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    training: bool,
) -> Rows:
    ids = _example_ids(columns)
    encoded = tokenised.encoded(adapter, columns, ids, tokenizer, max_length, training)
    return Rows(encoded, adapter.references(columns), ids, split)


def _example_ids(columns: Columns) -> list[str]:
    """16 hex digits over a row's content, the same from every source that holds the same row."""
    names = [name for name in columns if name != "idx"]
    ids = []
    for values in zip(*(columns[name] for name in names), strict=True):
        text = json.dumps(dict(zip(names, values, strict=True)), sort_keys=True, default=str)
        ids.append(hashlib.sha256(text.encode()).hexdigest()[:16])
    return ids
