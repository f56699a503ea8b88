"""Simulated peaks of the tables: computed with --simulate, and stored as records.

Residual and Total are simulated at the batch size and length of `AT`. They are those of the authors' script
for LLaMA (scripts/llama_hier.sh), as the paper does not give those of its measurements.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.files import file_stem, write_text
from benchmark.records import jsonfile
from benchmark.records.folders import Folder
from benchmark.sizes import GIB
from benchmark.tables import definition
from benchmark.tables.definition import SimulatedTable

if TYPE_CHECKING:
    from benchmark.memory.setting import Setting

SCHEMA_VERSION = 1
AT: dict[str, Any] = {"batch_size": 8, "seq_len": 512}
PRECISIONS = {"FP32": "fp32", "Mixed": "mixed", "Mixed^Hi": "mixed_hi"}
METHODS = {"FPFT": "full", "HiFT": "hift"}


@dataclass(frozen=True)
class Found:
    """One simulated step at its peak, in bytes.

    total: the peak. standing: weights, masters, gradients and optimizer state (#PGS). kinds: bytes by kind of
    tensor, which sum to `total`. largest: the kind with the most bytes. moment: where in the step the peak
    is.
    """

    total: int
    standing: int
    largest: str
    kinds: dict[str, int]
    moment: str
    code: dict[str, Any]


@dataclass(frozen=True)
class File:
    """The records of one model. peaks: the `key` of a step -> its peak."""

    peaks: dict[str, Found]
    device: str = "cuda"
    schema_version: int = SCHEMA_VERSION


def paper_settings(model: str, *, group_size: int = 1) -> dict[tuple[str, str, str], Setting]:
    """(optimizer, precision, method) of a row of a memory table -> the step to simulate."""
    from benchmark.memory.setting import Setting
    from benchmark.tables.closed_form import OPTIMIZERS, ROWS

    attention = attention_of(model)
    return {
        (optimizer, precision, method): Setting(
            model=model,
            strategy=METHODS[method],
            options={"group_size": group_size} if method == "HiFT" else {},
            optimizer=OPTIMIZERS[optimizer],
            precision=PRECISIONS[precision],
            attention=attention,
            **AT,
        )
        for optimizer, precision, method in ROWS
    }


def attention_of(model: str) -> str:
    """The attention that transformers chooses: sdpa, or eager for a model without it (GPT-Neo)."""
    import transformers

    from benchmark.models import shapes

    architecture, _ = shapes.config(model)
    return "sdpa" if getattr(transformers, architecture)._supports_sdpa else "eager"


def grid_settings(table: SimulatedTable) -> list[Setting]:
    """Every step of the table's grid: precision × length × batch size."""
    from benchmark.memory.setting import Setting

    return [
        Setting(
            model=table.model,
            strategy=table.strategy,
            optimizer=table.optimizer,
            precision=precision,
            batch_size=batch,
            seq_len=length,
            attention=table.attention,
        )
        for precision in table.precisions
        for length in table.seq_lens
        for batch in table.batch_sizes
    ]


def grid_rows(table: SimulatedTable, results: Path) -> list[dict[str, Any]]:
    """One row per step: its peak in GB (2^30 bytes), whether it fits the budget, and its largest part."""
    rows: list[dict[str, Any]] = []
    peaks = read(table.model, results)
    sources = "; ".join(row["source"] for row in definition.published(table.reference))
    for setting in grid_settings(table):
        one = peaks.get(key(setting))
        peak = one.total / GIB if one else None
        verdict, why = _fits(peak, table)
        rows.append(
            {"precision": setting.precision, "seq_len": setting.seq_len}
            | {"batch_size": setting.batch_size, "peak_gb": peak}
            | {"budget_gb": table.budget_gb, "largest": one.largest if one else None}
            | {"verdict": verdict, "why": why}
            | {"source": sources}
        )
    return rows


def _fits(peak: float | None, table: SimulatedTable) -> tuple[str, str | None]:
    """The verdict on a peak in GB, and the reason if it is not "fits" or "does not fit"."""
    if peak is None:
        return "not run", "no simulation on record: --simulate"
    if peak > table.budget_gb:
        return "does not fit", None
    if peak > table.budget_gb - table.margin_gb:
        return "inconclusive", f"less than {table.margin_gb:g} GB below the budget"
    return "fits", None


def key(setting: Setting) -> str:
    """The name of a step in the file of its model: all settings that a table may choose."""
    options = " ".join(f"{name}={value}" for name, value in sorted(setting.options.items()))
    step = f"{setting.batch_size}x{setting.seq_len} {setting.attention}"
    return " ".join(
        filter(None, (setting.strategy, options, setting.optimizer, setting.precision, step))
    )


def run(settings: Iterable[Setting], results: Path, report: Callable[[int, int], None]) -> None:
    """Simulate the steps that have no record yet. Each is written at once, so an interrupted call can be
    resumed.

    report: called with (steps done, steps in all).
    """
    from benchmark.memory import simulate
    from benchmark.records import environment

    steps = list(settings)
    for done, setting in enumerate(steps):
        report(done, len(steps))
        path = _path(setting.model, results)
        peaks = read(setting.model, results)
        if key(setting) in peaks:
            continue
        peak = simulate.peak(setting)
        simulation = Found(
            total=peak.total,
            standing=peak.standing,
            largest=peak.largest,
            kinds=peak.kinds,
            moment=peak.moment,
            code=environment.code(),
        )
        data = dataclasses.asdict(File(peaks | {key(setting): simulation}))
        write_text(path, json.dumps(data, indent=1, sort_keys=True) + "\n")
    report(len(steps), len(steps))


def read(model: str, results: Path) -> dict[str, Found]:
    """`key` -> simulated peak, for `model`. Raises UserError for a file that breaks the schema."""
    path = _path(model, results)
    if not path.is_file():
        return {}
    return jsonfile.read(File, path, SCHEMA_VERSION).peaks


def _path(model: str, results: Path) -> Path:
    return results / Folder.simulated / f"{file_stem(model)}.json"
