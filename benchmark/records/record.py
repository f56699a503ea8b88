"""RunRecord: what one run was and what came of it; the truth that MLflow, reports and tables only view.

Owns the versioned schema, the atomic write and the strict load. Standard library alone, so a record can
be read anywhere. Beside a record `<run_id>.json` lie two files it names: the per-step curve (CSV) and the
predictions (JSON lines, `predictions.py`), both relative to the record's folder.
"""

import csv
import dataclasses
import io
import json
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmark.errors import UserError, nearest
from benchmark.files import free, write_text
from benchmark.records import jsonfile

SCHEMA_VERSION = 1

Status = Literal["success", "oom", "diverged", "failed", "unsupported", "interrupted"]
STATUSES: tuple[str, ...] = typing.get_args(Status)


@dataclass(frozen=True, kw_only=True)
class Times:
    """UTC, ISO 8601. `fixed_s`: seconds of the process outside training and evaluation (start, model and
    data load, records). `resumed`: a killed process had done the training and maybe some of the evaluation;
    all but `train.seconds` is of the last process."""

    started: str
    finished: str
    total_s: float
    fixed_s: float | None = None
    resumed: bool = False


@dataclass(frozen=True, kw_only=True)
class Scores:
    """`main` is `all[metric]`, else ValueError; both are as the metric defines them, fractions or points.

    `stderr`: the standard error of `main` over the `n` examples, as if they were drawn at random; it knows
    nothing of the spread over seeds. None where the metric has no score per example (`metrics.per_example`),
    and in older records.
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
    """`steps` are optimizer steps; `tokens` counts attended (unpadded) input tokens; times in ms per
    optimizer step, steps on which memory or operations were counted left out. `flops`: floating-point
    operations of matrix products and attention. `group_tokens`: the mean tokens of each group's steps.
    `others`: the share of the machine's processors, 0 to 1, that other work took during training; None in
    older records."""

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
    """A look at the model during training, after `step` optimizer steps; what training had cost by then.

    `dev_loss` and `dev_score` are of the rows held out of train, `score` of the evaluation split: the task's
    main score each, None where the run did not ask for it.
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
    """Parameter counts as measured from the gradients each step produced, not as configured.

    ratio_peak and ratio_mean are trainable parameters per step over `total`. `groups` is 1 where the
    optimizer has no groups.
    """

    total: int
    trainable_ever: int
    trainable_peak_per_step: int
    ratio_peak: float
    ratio_mean: float
    groups: int


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes. The training phase's peak: on a CUDA device the allocator's, on a CPU counted tensor bytes
    (`kind`), with the optimizer state that HiFT keeps on the host in `host_state`, not in the peak.
    `eval_peak`: the evaluation's own, which is the run's where nothing trains. `load_peak`: that of moving
    the model to the device and building the optimizer, before training; None where nothing trains, and in
    records made before it was measured."""

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
    predicted: int | None = None
    load_peak: int | None = None

    @property
    def peak(self) -> int:
        """What the device had to hold for the run to train: the larger of loading and training."""
        return max(self.peak_allocated, self.load_peak or 0)


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Shares of the scored examples: `exact` of those whose input stands among the rows that train, `group`
    of those whose source does (the column `dataset.group_by` of the task, where it has one)."""

    exact: float
    group: float


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What went in. `*_revision`: the commit on the Hub, a package's or twin's version, None for a folder.
    `model_fingerprint` hashes the weights as loaded; `dataset_fingerprint` the rows drawn.

    `read_*`: rows of the splits in the source. `examples_*`: examples used of them, for training (or as
    demonstrations) and for the score. `examples_truncated`: those whose text was cut. `left_out`: rows of
    both splits that are no examples by the task's `without`. `set_aside`: rows of train that neither train
    nor are held out, as they share text with held-out ones. `long_*`: rows that max_length does not hold,
    left out of training or their prompts cut from the left. `overlap_*`: what the evaluation split's examples
    and the held-out ones share with those used for training. `demonstrations_mean`: how many fit before a
    prompt. `initialised`: weights that no checkpoint held, new and random (None: not recorded).
    """

    model: str
    model_source: str
    model_revision: str | None
    model_fingerprint: str
    dataset: str
    dataset_source: Literal["hub", "mirror", "twin"]
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
    schema_version: int = field(default=SCHEMA_VERSION)

    def to_json(self) -> str:
        """Stable text (sorted keys, two-space indent). ValueError on NaN or infinity: use None."""
        return (
            json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"
        )


def write(record: RunRecord, path: Path) -> RunRecord:
    """Write `record` atomically and return the record that stands at `path` after it.

    That is the old one where it is a success of the same spec and `record` is none: a finished run loses
    nothing by what happens to it later. Whatever a different spec had left is moved aside, never lost.
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
    """Copy the record into `superseded/` beside it, under a name that no other has."""
    aside = free(path.parent / "superseded" / path.name)
    write_text(aside, path.read_text(encoding="utf-8"))


def load(path: Path) -> RunRecord:
    """Read one record strictly. Raises UserError naming the file and the key for anything off schema."""
    return jsonfile.read(RunRecord, path, SCHEMA_VERSION)


def load_all(folder: Path) -> list[RunRecord]:
    """Every record directly in `folder`, by file name. Raises UserError on the first unreadable one."""
    return [load(path) for path in sorted(folder.glob("*.json"))]


def read_curve(path: Path) -> dict[str, list[float]]:
    """The per-step curve as columns: step, seconds, loss, lr, group, trainable_ratio, tokens, flops, step_ms.

    Empty cells (a step time left out because memory or operations were counted on it) are NaN.
    """
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = rows[0].keys() if rows else ()
    return {name: [float(row[name]) if row[name] else math.nan for row in rows] for name in names}


def curve_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """The CSV that `read_curve` reads."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
