"""Simulated peaks for the tables: found once with --simulate, kept as records, read like any other record.

Residual and Total are those of a whole step at the batch and length of `AT`, the ones in the authors' script
for LLaMA (scripts/llama_hier.sh); the paper does not say at which it measured.
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
    """Bytes of one simulated step at its worst moment; `standing` is its #PGS, `kinds` sum to `total`."""

    total: int
    standing: int
    largest: str
    kinds: dict[str, int]
    moment: str
    code: dict[str, Any]


@dataclass(frozen=True)
class File:
    """What is on record for one model: key -> what was found."""

    peaks: dict[str, Found]
    device: str = "cuda"
    schema_version: int = SCHEMA_VERSION


def paper_settings(model: str, *, group_size: int = 1) -> dict[tuple[str, str, str], Setting]:
    """(optimizer, precision, method) of a memory table -> the step to simulate."""
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
    """What transformers chooses for the family: sdpa, or eager where it has no other (GPT-Neo)."""
    import transformers

    from benchmark.models import shapes

    architecture, _ = shapes.config(model)
    return "sdpa" if getattr(transformers, architecture)._supports_sdpa else "eager"


def grid_settings(table: SimulatedTable) -> list[Setting]:
    """Every step of the table: precision × length × batch."""
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
    """One row per step: its peak in GB (2^30 bytes), whether the budget holds it, what takes most."""
    rows: list[dict[str, Any]] = []
    found = read(table.model, results)
    sources = "; ".join(row["source"] for row in definition.published(table.reference))
    for setting in grid_settings(table):
        one = found.get(key(setting))
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
    """The verdict on a peak in GB, and why where it is neither yes nor no."""
    if peak is None:
        return "not run", "no simulation on record: --simulate"
    if peak > table.budget_gb:
        return "does not fit", None
    if peak > table.budget_gb - table.margin_gb:
        return "inconclusive", f"less than {table.margin_gb:g} GB below the budget"
    return "fits", None


def key(setting: Setting) -> str:
    """The record's name of a step: all that a table sets, readable."""
    options = " ".join(f"{name}={value}" for name, value in sorted(setting.options.items()))
    step = f"{setting.batch_size}x{setting.seq_len} {setting.attention}"
    return " ".join(
        filter(None, (setting.strategy, options, setting.optimizer, setting.precision, step))
    )


def run(settings: Iterable[Setting], results: Path, report: Callable[[int, int], None]) -> None:
    """Simulate what has no record yet; each is written at once, so a broken-off call goes on later."""
    from benchmark.memory import simulate
    from benchmark.records import environment

    wanted = list(settings)
    for done, setting in enumerate(wanted):
        report(done, len(wanted))
        path = _path(setting.model, results)
        peaks = read(setting.model, results)
        if key(setting) in peaks:
            continue
        peak = simulate.peak(setting)
        found = Found(
            total=peak.total,
            standing=peak.standing,
            largest=peak.largest,
            kinds=peak.kinds,
            moment=peak.moment,
            code=environment.code(),
        )
        data = dataclasses.asdict(File(peaks | {key(setting): found}))
        write_text(path, json.dumps(data, indent=1, sort_keys=True) + "\n")
    report(len(wanted), len(wanted))


def read(model: str, results: Path) -> dict[str, Found]:
    """key -> what was found for `model`. Raises UserError for a file off schema."""
    path = _path(model, results)
    if not path.is_file():
        return {}
    return jsonfile.read(File, path, SCHEMA_VERSION).peaks


def _path(model: str, results: Path) -> Path:
    return results / "simulated" / f"{file_stem(model)}.json"
