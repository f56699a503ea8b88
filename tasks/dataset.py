"""The key `dataset` of a task YAML: which dataset and splits, and how rows of train are held out.

A task of the user's own has the key `data` in its place, with files of rows.
"""

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Shots(Strict):
    """Few-shot training: `count` rows of each class of column `per`, drawn by the run's seed.

    `all_of`: classes that may have fewer rows. All their rows are used, first for training, then held out.
    """

    per: str
    count: Positive
    all_of: tuple[int, ...] = ()


COMMIT = re.compile(r"[0-9a-f]{40}")
"""A commit hash. Unlike a branch or tag it always names the same content."""


class Origin(Strict):
    """One dataset on the Hub. `revision` is a commit, or the branch `refs/convert/parquet` for datasets that
    the Hub has converted from a script."""

    id: str
    config: str
    revision: str

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit."""
        return COMMIT.fullmatch(self.revision) is not None


UNKNOWN = {"train": 0, "eval": 0}
"""The sizes of data of the user's own; benchmark/data/footers.py counts what lies on this machine."""
UNPINNED = "unpinned"
"""The revision of files of the user's own."""
SHARE, SHARE_SEED = 0.1, 0
"""The share of the rows that is held out for evaluation where the user gives no file for it, and the seed."""
HELD_OUT = f"train[{SHARE:.0%} held out for evaluation by seed {SHARE_SEED}]"
REST = "train[without the rows held out for evaluation]"
"""The splits of such a task: equal inputs, or rows of one group (`group_by`), are all in one of them."""


class DatasetConfig(Origin):
    """The dataset of a task.

    `splits`: the split of each role (`train`, `eval`), or a slice of it by row (`train[1000:]`).
    `sizes`: the official number of rows of these splits, for planning, or UNKNOWN; with `shots` the number of
    shots.
    `without`: rows to leave out, by a value of a column, such as SNLI's label -1 (no agreed label).
    `evaluated_on`: the dataset of the role `eval`, if it is another one.
    `files`: the files of each role, for a task of the user's own (`tasks.own`). Then `id` is the task's name,
    and without a file for `eval` the splits are REST and HELD_OUT.

    The other keys say how rows of train are held out:
    `group_by`: a column. Rows with equal text in it have one source, so all are held out or none.
    `held_out: like_eval` draws rows with the length distribution of the evaluation split.
    `nested`: rows may contain one another. Rows that contain a held-out row, or are contained in one, are not
    used for training.
    `shots`: rows are drawn by class only, as in the reference implementation.
    """

    splits: dict[str, str]
    sizes: dict[str, int]
    without: dict[str, int | str] = {}
    shots: Shots | None = None
    evaluated_on: Origin | None = None
    files: dict[str, str] = {}
    group_by: str | None = None
    held_out: Literal["random", "like_eval"] = "random"
    nested: bool = False

    @property
    def origins(self) -> dict[str, Origin]:
        """The dataset of each role, `train` and `eval`."""
        return {"train": self, "eval": self.evaluated_on or self}

    @property
    def title(self) -> str:
        """Id and config of the dataset, or of both if there are two."""
        return " + ".join(dict.fromkeys(f"{o.id}/{o.config}" for o in self.origins.values()))

    @property
    def revisions(self) -> str:
        """The revision of the dataset, or of both in the order of `title`."""
        revisions = {f"{o.id}/{o.config}": o.revision for o in self.origins.values()}
        return " + ".join(revisions.values())

    @model_validator(mode="after")
    def _complete(self) -> "DatasetConfig":
        for role in ("train", "eval"):
            if role not in self.splits or role not in self.sizes:
                raise ValueError(f"splits and sizes need an entry for {role}")
        if self.shots and (self.group_by or self.nested or self.held_out != "random"):
            raise ValueError("shots: cannot be combined with group_by, held_out or nested")
        return self


class Data(Strict):
    """The key `data` of a task of the user's own: files of rows (.jsonl, .csv, .parquet), `eval` if there is
    one, and keys of `DatasetConfig` about rows."""

    train: str
    eval: str | None = None
    without: dict[str, int | str] = {}
    shots: Shots | None = None
    group_by: str | None = None
    held_out: Literal["random", "like_eval"] = "random"
    nested: bool = False


def plain(value: Any) -> str:
    """A value as text. Values that differ only in the white space between words give the same text."""
    if isinstance(value, str):
        return " ".join(value.split())
    return json.dumps(value, sort_keys=True, default=str)
