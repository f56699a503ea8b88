"""The records of `hift-bench speed --save`: the rows of one timing, the machine and its load.

Each timing is a JSON file of its own, which is never overwritten. Nothing here imports torch.
"""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.files import file_stem, free, write_text
from benchmark.measure.machine import Others
from benchmark.records import jsonfile

SCHEMA_VERSION = 1
BUSY = 0.25
"""The load average per core above which a machine counts as busy."""
MOST_OTHERS = 0.05
"""The share of the processors' time above which other processes count."""
SCATTER_PERCENT = 10
"""The allowed range of a ratio over the sweeps, in percent of the ratio. A wider one is inconclusive."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """The timed steps of one strategy or yardstick.

    strategy, options: the strategy and the options that are this row's own; None for a yardstick, and in
    records from before there were such options, where the name is the strategy's.
    ratio_to_full, ratio_to_limit: the mean step time over that of `full` and of `limit`; ratio_to_full is
    None if `full` was not timed. ratio_low, ratio_high: the smallest and largest ratio to `full` of any
    sweep. ratio_to_bare: the step time over that of the method's bare loop, both means over the steps of a
    sweep of each one's median over the sweeps; None if that was not timed.
    saved_activation_bytes, state_bytes: the largest of any step, on the device. m: units per group, and
    sweep_steps: the steps in which each group trains once; None if there are no groups, and sweep_steps in
    records from before it was kept.
    """

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
    sweep_steps: int | None = None
    ratio_to_bare: float | None = None
    strategy: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One timing.

    group_size: m of the yardsticks. options: those that the user set for all strategies. checkpointing: the
    strategies recompute activations. load: the load average over the minute before the timing; None if the
    system has none. others: the share (0 to 1) of all processors' time that other processes used during the
    timing; None in records from before it was measured, where the load counts.
    """

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
    checkpointing: bool = False
    others: float | None = None
    schema_version: int = field(default=SCHEMA_VERSION)


def load() -> float | None:
    """The system's load average over the last minute; None if the system has none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def others() -> Others:
    """What other processes use from now on."""
    return Others()


def busy(load: float | None, cores: int | None) -> bool:
    """Whether `load` is above BUSY per core. An unknown load is not busy."""
    return load is not None and load > BUSY * (cores or 1)


def noise(timed: Timed, row: Row) -> str | None:
    """Why the row is inconclusive; None if it is not."""
    cores = timed.environment["cores"]
    if timed.others is not None and timed.others > MOST_OTHERS:
        return f"the machine was busy: other processes used {timed.others:.0%} of its processors"
    if timed.others is None and busy(timed.load, cores):
        return f"the machine was busy: load {timed.load:g} on {cores} cores"
    if row.ratio_to_full is None or row.ratio_low is None or row.ratio_high is None:
        return "without full there is no ratio"
    if row.steps < (row.sweep_steps or 0):
        return f"{row.steps} steps, where a sweep takes {row.sweep_steps}"
    width = row.ratio_high - row.ratio_low
    if 100 * width > SCATTER_PERCENT * row.ratio_to_full:
        return f"{row.ratio_low:.2f} to {row.ratio_high:.2f} over {timed.sweeps} sweeps"
    return None


def save(timed: Timed, folder: Path) -> Path:
    """Write `timed` to a new file in `folder`; returns its path."""
    setting = (timed.model, timed.optimizer, f"{timed.batch_size}x{timed.seq_len}")
    recomputed = ("checkpointing",) if timed.checkpointing else ()
    name = file_stem(*setting, f"m{timed.group_size}", *recomputed)
    path = free(folder / f"{name}.json")
    text = json.dumps(dataclasses.asdict(timed), indent=2, sort_keys=True, allow_nan=False)
    write_text(path, text + "\n")
    return path


def read_all(folder: Path) -> list[Timed]:
    """Every timing in `folder`, sorted by file name. Raises UserError for a file that breaks the schema."""
    return [jsonfile.read(Timed, path, SCHEMA_VERSION) for path in sorted(folder.glob("*.json"))]
