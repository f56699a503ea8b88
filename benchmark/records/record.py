"""RunRecord: the settings and results of one run. MLflow, reports and tables are made from records alone.

This file owns the versioned schema, the atomic write and the strict load. It uses the standard library only,
so a record can be read anywhere. A record `<run_id>.json` names two files by paths relative to its folder:
the values of each step (`curve`, CSV) and the predictions (JSON lines, `predictions.py`); and the folder of
the trained model, if it was kept (`model_folder`).
"""

import csv
import dataclasses
import io
import json
import math
import shutil
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from benchmark.errors import UserError, nearest
from benchmark.files import free, replacing, write_text
from benchmark.records import jsonfile

SCHEMA_VERSION = 1

Status = Literal[
    "success", "oom", "diverged", "timeout", "failed", "unsupported", "refused", "interrupted"
]
STATUSES: tuple[str, ...] = typing.get_args(Status)
_NAMES_THE_RUN = {"task": str, "model": str, "strategy": str, "label": str, "seed": int}
"""The keys of a record's spec by which it is shown, and the type of each."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """`started` and `finished` are UTC in ISO 8601; `*_s` are seconds.

    `fixed_s`: time of the process outside training and evaluation (start, loading model and data, writing
    records); None for a run that was resumed. `resumed`: an earlier process did a part of the work and was
    killed; then every time but `train.seconds` is of the last process. `resumed_from`: the optimizer steps
    after which it went on, one for each time it was resumed; empty in older records.
    """

    started: str
    finished: str
    total_s: float
    fixed_s: float | None = None
    resumed: bool = False
    resumed_from: list[int] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of a run on `n` examples, in the unit of each metric (a fraction or percentage points).

    `main` must equal `all[metric]`, else ValueError. `stderr` is the standard error of `main` over the
    examples; it does not include the spread over seeds. It is None in older records and where the metric
    has no score for each example (`metrics.per_example`).
    """

    main: float
    metric: str
    metric_version: str
    higher_is_better: bool
    split: str
    n: int
    all: dict[str, float]
    stderr: float | None = None

    def __post_init__(self) -> None:
        if self.metric not in self.all:
            raise ValueError(
                f"metric: {self.metric!r} is not in all{nearest(self.metric, self.all)}"
            )
        if self.main != (value := self.all[self.metric]):
            raise ValueError(f"main: {self.main} is not all.{self.metric}, which is {value}")


@dataclass(frozen=True, kw_only=True)
class Train:
    """What training took.

    `steps` are optimizer steps. `tokens` are input tokens without padding. `step_ms_*` are milliseconds per
    optimizer step, without the steps on which memory or operations were counted. `flops` are floating-point
    operations of matrix products and attention. `group_tokens` has the mean tokens of a step for each group.
    `others` is the share (0 to 1) of the machine's processor time that other processes used during training;
    None in older records.
    """

    steps: int
    examples: int
    tokens: int
    seconds: float
    step_ms_median: float | None
    step_ms_p90: float | None
    final_loss: float | None
    flops: int | None = None
    group_tokens: list[float] = field(default_factory=list)
    others: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation during training, after `step` optimizer steps, and what training had cost by then.

    `dev_loss` and `dev_score` are the loss and main score on rows held out of the training set; `score` is
    the main score on the evaluation split. Each is None where the run did not compute it.
    """

    step: int
    examples: int
    tokens: int
    flops: int
    seconds: float
    dev_loss: float | None = None
    dev_score: float | None = None
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class Params:
    """Numbers of parameters, measured: a parameter counts as trained in a step where it has a gradient.

    `ratio_peak` and `ratio_mean` are the largest and the mean share of `total` that a step trains. `groups`
    is 1 where the optimizer has no groups. `unmoved` names the tensors that had gradients and never moved, as
    happens to weights of 16 bits when the rate is low.
    """

    total: int
    trainable_ever: int
    trainable_peak_per_step: int
    ratio_peak: float
    ratio_mean: float
    groups: int
    unmoved: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory in bytes; peaks are of the training phase unless said otherwise.

    `kind` says how the peak was measured: by the allocator on a CUDA device, by counting tensor bytes on a
    CPU. Of several devices all is that of the first. Optimizer state that HiFT moves to the host is in
    `host_state` and not in the peak. `eval_peak` is the peak of the evaluation. `load_peak` is the peak while
    the model moves to the device and the optimizer is built; None where nothing trains and in older records.
    """

    kind: Literal["cuda", "counted_cpu_tensors"]
    device: str
    peak_allocated: int
    peak_reserved: int | None
    parameters: int
    gradients: int
    optimizer_state: int
    master: int
    host_state: int
    host_rss_peak: int
    eval_peak: int | None
    load_peak: int | None = None

    RETIRED: ClassVar[tuple[str, ...]] = ("predicted",)
    """Fields of older records that were never filled."""

    @property
    def peak(self) -> int:
        """Bytes that the device needs for the run: the larger of the peaks of loading and of training."""
        return max(self.peak_allocated, self.load_peak or 0)


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Shares (0 to 1) of the scored examples that also occur in the training set.

    `exact`: the same input text occurs there. `group`: the same source does, such as the passage of a
    question (the task's column `dataset.group_by`).
    """

    exact: float
    group: float


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The model and the data of a run.

    `*_revision`: the commit on the Hub, or the version of a package or twin; None for a folder, and
    "unpinned" for a task's files of the user's own.
    `*_fingerprint`: hashes of the weights as loaded, and of the sampled rows.
    `read_*`: number of rows of the split in the source.
    `examples_*`: number of examples used, for training (or as demonstrations) and for the score.
    `examples_truncated`: number of examples whose text was cut.
    `left_out`: rows of both splits that the task's `without` excludes.
    `set_aside`: rows of train used for nothing, because they share text with rows held out.
    `long_*`: examples longer than max_length, dropped from training or with their prompt cut from the left.
    `overlap_*`: what the examples scored (`eval`) or held out (`dev`) share with the training examples.
    `demonstrations_mean`: mean number of demonstrations that fit before a prompt.
    `initialised`: names of weights that the checkpoint lacks, initialised at random; None in older records.
    """

    model: str
    model_source: str
    model_revision: str | None
    model_fingerprint: str
    dataset: str
    dataset_source: Literal["hub", "mirror", "twin", "files"]
    dataset_revision: str | None
    dataset_fingerprint: str
    task_version: int
    examples_train: int
    examples_eval: int
    examples_truncated: int
    read_train: int | None = None
    read_eval: int | None = None
    left_out: int = 0
    set_aside: int = 0
    long_train_dropped: int = 0
    long_train_cut: int = 0
    long_eval_cut: int = 0
    overlap_eval: Overlap | None = None
    overlap_dev: Overlap | None = None
    demonstrations_mean: float = 0.0
    initialised: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    run_id: str
    spec_hash: str
    status: Status
    spec: dict[str, Any]
    times: Times
    environment: dict[str, Any]
    code: dict[str, Any]
    error: str | None = None
    scores: Scores | None = None
    train: Train | None = None
    params: Params | None = None
    memory: Memory | None = None
    inputs: Inputs | None = None
    evaluations: list[Evaluation] = field(default_factory=list)
    curve: str | None = None
    predictions: str | None = None
    model_folder: str | None = None
    schema_version: int = field(default=SCHEMA_VERSION)

    def __post_init__(self) -> None:
        for key, kind in _NAMES_THE_RUN.items():
            if not isinstance(self.spec.get(key), kind):
                raise ValueError(f"spec.{key}: {self.spec.get(key)!r} is not {kind.__name__}")

    def to_json(self) -> str:
        """JSON with sorted keys and an indent of two spaces. Raises ValueError for NaN and infinity."""
        return (
            json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"
        )


def write(record: RunRecord, path: Path) -> RunRecord:
    """Write `record` atomically. Returns the record that is at `path` afterwards.

    A successful record is not replaced by an unsuccessful one of the same spec; then the old record stays and
    is returned. A record of a different spec, and an unreadable file, are first copied into `superseded/`.
    """
    if path.exists():
        try:
            old = load(path)
        except UserError:
            old = None
        if old is None or old.spec_hash != record.spec_hash:
            _move_aside(path)
        elif old.status == "success" and record.status != "success":
            return old
    write_text(path, record.to_json())
    return record


def _move_aside(path: Path) -> None:
    """Copy the record into the folder `superseded/` beside it, under a name that is not yet in use."""
    with replacing(free(path.parent / "superseded" / path.name)) as aside:
        shutil.copyfile(path, aside)  # a damaged record may not even be text


def load(path: Path) -> RunRecord:
    """Read one record. Raises UserError naming the file and the key where it does not match the schema."""
    return jsonfile.read(RunRecord, path, SCHEMA_VERSION)


def load_all(folder: Path, note: Callable[[str], None] = lambda line: None) -> list[RunRecord]:
    """The records directly in `folder`, sorted by file name.

    Every other JSON file is passed over; `note` is called with a line that names it and says why.
    """
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            records.append(load(path))
        except UserError as error:
            note(passed_over(path, error))
    return records


def passed_over(path: Path, error: UserError) -> str:
    """A line about a JSON file that `load` refused with `error`: it is no record, or a damaged one."""
    if _is_other(path):
        return f"{path}: passed over, as it is no record of a run"
    return f"{error}; its run counts as missing"


def _is_other(path: Path) -> bool:
    """Whether the file is whole JSON without anything that names a run."""
    try:
        data = jsonfile.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return not (isinstance(data, dict) and {"run_id", "spec_hash"} & data.keys())


def read_curve(path: Path) -> dict[str, list[float]]:
    """A curve file as lists, one value a step, by column name (`measure.training.CURVE_COLUMNS`).

    An empty cell is NaN, such as the time of a step on which memory or operations were counted. Raises
    OSError or ValueError for a file that is no curve, or one that was cut off.
    """
    with open(path, encoding="utf-8", newline="") as file:
        try:
            rows = list(csv.DictReader(file))
        except csv.Error as error:
            raise ValueError(f"{path}: {error}") from None
    for row in rows:
        if None in row or None in row.values():
            raise ValueError(f"{path}: a line with more or fewer cells than there are columns")
    names = rows[0].keys() if rows else ()
    return {name: [float(row[name]) if row[name] else math.nan for row in rows] for name in names}


def curve_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """`rows` as CSV text with a header, which `read_curve` reads."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
