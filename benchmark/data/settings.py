"""DataSettings: the settings that decide which rows a run uses, and in which form."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The fields of RunSpec with the same names.

    `trains`: whether the run trains. If not, the rows drawn from train are not encoded.
    """

    data: Literal["hub", "mirror", "twin", "files"]
    seed: int
    train_examples: int | None = None
    eval_examples: int | None = None
    dev_examples: int = 0
    max_length: int = 128
    too_long: Literal["drop", "truncate", "error"] = "drop"
    demonstrations: int = 0
    trains: bool = True
