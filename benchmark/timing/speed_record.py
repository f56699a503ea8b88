"""What `hift-bench speed --save` keeps: the rows of one timing, the machine and how busy it was. No torch.

JSON files, one per timing, read as strictly as any record; none is ever overwritten.
"""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.files import file_stem, free, write_text
from benchmark.records import jsonfile

SCHEMA_VERSION = 1
BUSY = 0.25
"""How many other processes per core may have run in the minute before a timing."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """The steps of one strategy or yardstick, in ms and as ratios of means. `ratio_low`, `ratio_high`: the
    extremes of the ratio to full over the timed sweeps. Bytes are the largest of any step. `m`: units per
    group, where there are groups."""

    name: str
    median_ms: float
    p90_ms: float
    mean_ms: float
    ratio_to_full: float | None
    ratio_low: float | None
    ratio_high: float | None
    ratio_to_limit: float
    saved_activation_bytes: int
    state_bytes: int
    steps: int
    m: int | None = None


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One timing. `group_size`: m of the yardsticks. `options`: the strategies' own, as far as they were
    given. `load`: how many processes ran or waited to run, on average, in the minute before it."""

    model: str
    group_size: int
    optimizer: str
    batch_size: int
    seq_len: int
    sweeps: int
    started: str
    load: float | None
    rows: list[Row]
    environment: dict[str, Any]
    code: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    schema_version: int = field(default=SCHEMA_VERSION)


def load() -> float | None:
    """The system's load average over the last minute; None where it keeps none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def busy(load: float | None, cores: int | None) -> bool:
    """Whether the machine had other work than the timing, as far as its load is known."""
    return load is not None and load > BUSY * (cores or 1)


def save(timed: Timed, folder: Path) -> Path:
    """Write `timed` under a name of its own in `folder`; returns the file."""
    setting = (timed.model, timed.optimizer, f"{timed.batch_size}x{timed.seq_len}")
    name = file_stem(*setting, f"m{timed.group_size}")
    path = free(folder / f"{name}.json")
    text = json.dumps(dataclasses.asdict(timed), indent=2, sort_keys=True, allow_nan=False)
    write_text(path, text + "\n")
    return path


def read_all(folder: Path) -> list[Timed]:
    """Every timing in `folder`, by file name. Raises UserError for one that is off schema."""
    return [jsonfile.read(Timed, path, SCHEMA_VERSION) for path in sorted(folder.glob("*.json"))]
