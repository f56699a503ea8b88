"""What a task YAML says of its data: which dataset, which rows of it, and how rows of train are held out."""

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Shots(Strict):
    """`count` rows of each class of column `per` are the whole training data, drawn by the run's seed.

    `all_of` names the classes that may have fewer rows: what they have trains, and what is left of it is
    held out.
    """

    per: str
    count: Positive
    all_of: tuple[int, ...] = ()


COMMIT = re.compile(r"[0-9a-f]{40}")
"""A revision that is always the same content; a branch or tag may move."""


class Origin(Strict):
    """One dataset, in the Hub's terms. `revision` is a commit; `refs/convert/parquet`, which is a branch, for
    datasets that were scripts."""

    id: str
    config: str
    revision: str

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit."""
        return COMMIT.fullmatch(self.revision) is not None


class DatasetConfig(Origin):
    """Where the data is. `evaluated_on` is the dataset of the split `eval` where it is not that of `train`.

    `splits` are names, or slices of them by row (`train[1000:]`). `sizes` are the official row counts of the
    splits used, for planning; with `shots` that of `train` is their number. `without` names rows that are no
    examples: a value of a column each, as SNLI's label -1 where the annotators disagreed.

    The other keys say how rows of train are held out. Rows with equal text in column `group_by` come from one
    source and never lie on both sides. `held_out: like_eval` draws rows that are as long as those of the
    evaluation split. With `nested` rows may be pieces of one another: those that lie within a held-out
    row, or contain one, do not train. With `shots` rows are drawn as the reference does, by class alone.
    """

    splits: dict[str, str]
    sizes: dict[str, int]
    without: dict[str, int | str] = {}
    shots: Shots | None = None
    evaluated_on: Origin | None = None
    group_by: str | None = None
    held_out: Literal["random", "like_eval"] = "random"
    nested: bool = False

    @property
    def origins(self) -> dict[str, Origin]:
        """The dataset that each role, `train` and `eval`, is read from."""
        return {"train": self, "eval": self.evaluated_on or self}

    @property
    def title(self) -> str:
        """Id and config, of both datasets where there are two."""
        return " + ".join(dict.fromkeys(f"{o.id}/{o.config}" for o in self.origins.values()))

    @property
    def revisions(self) -> str:
        """The revision, or both in the order of the title."""
        found = {f"{o.id}/{o.config}": o.revision for o in self.origins.values()}
        return " + ".join(found.values())

    @model_validator(mode="after")
    def _complete(self) -> "DatasetConfig":
        for role in ("train", "eval"):
            if role not in self.splits or role not in self.sizes:
                raise ValueError(f"splits and sizes need an entry for {role}")
        if self.shots and (self.group_by or self.nested or self.held_out != "random"):
            raise ValueError("shots: take no group_by, held_out and nested")
        return self


def plain(value: Any) -> str:
    """A value of a row as text, equal for values that differ in nothing but blanks between words."""
    if isinstance(value, str):
        return " ".join(value.split())
    return json.dumps(value, sort_keys=True, default=str)
