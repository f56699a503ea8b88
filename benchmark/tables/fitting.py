"""The page of `hift-bench fit --all`: for each model and amount of memory the best settings of HiFT, and what
other systems publish beside ours. All that is ours is simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmark.console import as_csv
from benchmark.files import write_text
from benchmark.records.environment import code
from benchmark.records.spec import Strict
from benchmark.report.page import environment
from benchmark.sizes import GIB, readable

if TYPE_CHECKING:
    from benchmark.memory.roofline import Gpu
    from benchmark.memory.search import Found, Missing

TEMPLATES = Path(__file__).parent / "templates"
PAGE = Path(__file__).parent / "reference" / "fit.yaml"
MODELS = (
    *("roberta-base", "roberta-large", "gpt2-large", "gpt-neo-2.7b", "llama-7b", "opt-13b"),
    *("mistral-7b", "qwen2.5-7b", "llama-3.1-8b", "qwen2.5-14b", "llama-3.1-70b", "qwen2.5-72b"),
)
"""The HiFT paper's six models, then larger ones by size."""
BUDGETS = (8, 12, 16, 24, 48, 80)
"""GiB of device memory."""
HOSTS: tuple[int | None, ...] = (None,)
"""GiB of host memory, a table each; None for any amount."""
TOKENS = 4096
"""Of a step: four sequences of 1,024, or more and shorter ones where the model's positions end before."""
Row = dict[str, Any]


class Published(Strict):
    """What is reported of a system's memory, and the settings of ours to put beside it.

    says: the claim in a few words. device_gb, host_gb: its figures in GB of 10^9 bytes; None where there is
    none. ours: label -> fields of a Setting.
    """

    system: str
    says: str
    device_gb: float | None = None
    host_gb: float | None = None
    source: str
    ours: dict[str, dict[str, Any]]


class Page(Strict):
    """reference/fit.yaml. beside: the paragraph above what is published."""

    title: str
    notes: tuple[str, ...]
    beside: str
    published: tuple[Published, ...]


def write(out: Path, gpu: str, report: Callable[[int, int], None]) -> Path:
    """Search for every model and amount of memory, and write cells.csv, index.md and index.html to `out`.

    gpu: as for `roofline.gpu`. Returns the path of index.html, which is written last.
    """
    from benchmark.memory import roofline

    on = roofline.gpu(gpu)
    found: list[Row] = []
    full: dict[str, str] = {}
    for done, model in enumerate(MODELS):
        report(done, len(MODELS) + 1)
        full[model] = readable(_full(model))
        found += cells(model, on)
    report(len(MODELS), len(MODELS) + 1)
    page = read()
    beside = [row for entry in page.published for row in _beside(entry)]
    version = code()
    made = "an unknown commit" if version["git_sha"] is None else f"commit {version['git_sha'][:9]}"
    if version["dirty"]:
        made += " with changes"
    tables = {
        "any amount of host memory" if host is None else f"{host} GiB of host memory": [
            (model, full[model], [_shown(row) for row in found if _is(row, model, host)])
            for model in MODELS
        ]
        for host in HOSTS
    }
    write_text(out / "cells.csv", as_csv(found))
    for kind in ("md", "html"):
        text = (
            environment(TEMPLATES, html=kind == "html")
            .get_template(f"fit.{kind}.j2")
            .render(page=page, tables=tables, beside=beside, budgets=BUDGETS, made=made)
        )
        write_text(out / f"index.{kind}", text)
    return out / "index.html"


def cells(model: str, on: Gpu) -> Iterator[Row]:
    """A row for each amount of host and device memory: the settings of the first recipe that fits, or what is
    missing. The keys are the same in all rows."""
    from benchmark.memory.search import Found, search, sequence_length

    length = sequence_length(model, TOKENS)
    for host in HOSTS:
        for budget in BUDGETS:
            limits = budget * GIB, host and host * GIB
            missing: list[Missing] = []
            row = None
            for answer in search(model, *limits, tokens=TOKENS, seq_len=length, on=on):
                if isinstance(answer, Found):
                    row = _row(answer)
                    break
                missing.append(answer)
            lacks = [
                f"{m.setting.precision} {m.setting.optimizer}: {m.lacks(*limits)}" for m in missing
            ]
            asked: Row = {"model": model, "host_gib": host, "budget_gib": budget}
            yield {**asked, **(row or dict.fromkeys(COLUMNS)), "missing": "; ".join(lacks)}


COLUMNS = (
    *("precision", "optimizer", "weights", "idle", "update", "partition", "group_size"),
    *("checkpointing", "boundaries", "loss", "batch"),
    *("device_bytes", "host_bytes", "moved_bytes", "step_s", "command"),
)
"""Of a row with settings."""


def _row(found: Found) -> Row:
    setting = found.setting
    row = {
        "boundaries": "device",
        **setting.options,
        **{
            key: getattr(setting, key)
            for key in ("precision", "optimizer", "checkpointing", "loss")
        },
        "batch": f"{found.micro_batches} x {setting.batch_size} x {setting.seq_len}",
        "device_bytes": found.peak.total,
        "host_bytes": found.peak.host,
        "moved_bytes": round(found.cost.moved),
        "step_s": float(f"{found.cost.seconds:.3g}"),
        "command": found.command(),
    }
    return {key: row[key] for key in COLUMNS}


def _is(row: Row, model: str, host: int | None) -> bool:
    return row["model"] == model and row["host_gib"] == host


def _shown(row: Row) -> list[str]:
    """The lines of a cell."""
    if row["precision"] is None:
        return ["does not fit:", row["missing"].split("; ")[-1]]
    group = f"m = {row['group_size']}" if row["partition"] == "units" else row["partition"]
    knobs = [
        f"{row['precision']} {row['optimizer']}",
        group,
        *(["streamed"] if row["weights"] == "stream" else []),
        *(["state on the device"] if row["idle"] == "keep" else []),
        *(["in backward"] if row["update"] == "in_backward" else []),
        *(["recomputed"] if row["checkpointing"] else []),
        *(["inputs on the host"] if row["boundaries"] in ("host", "parts") else []),
        *(["parts apart"] if row["boundaries"] == "parts" else []),
        *(["loss in chunks"] if row["loss"] == "chunked" else []),
        row["batch"].replace("x", "×"),
    ]
    host = f", host {readable(row['host_bytes'])}" if row["host_bytes"] else ""
    return [f"{readable(row['device_bytes'])}{host}", f"{row['step_s']:.3g} s", ", ".join(knobs)]


def _full(model: str) -> int:
    """The simulated peak of full fine-tuning with AdamW in fp32, in bytes."""
    from benchmark.memory import depth
    from benchmark.memory.search import sequence_length
    from benchmark.memory.setting import Setting

    length = sequence_length(model, TOKENS)
    usual = Setting(model=model, strategy="full", batch_size=TOKENS // length, seq_len=length)
    return depth.peak(usual).total


def read() -> Page:
    """What the page says besides its numbers, from reference/fit.yaml."""
    return Page(**yaml.safe_load(PAGE.read_text(encoding="utf-8")))


def _beside(entry: Published) -> Iterator[dict[str, str]]:
    """Rows of the second table: the claim, and ours beside it, one row for each setting."""
    from benchmark.memory import depth
    from benchmark.memory.setting import Setting

    for label, fields in entry.ours.items():
        peak = depth.peak(Setting(**fields))
        yield {
            "system": entry.system,
            "it reports": entry.says,
            "device, GB": _gb(entry.device_gb),
            "host, GB": _gb(entry.host_gb),
            "ours, simulated": label,
            "our device, GB": _gb(peak.total / 1e9),
            "our host, GB": _gb(peak.host / 1e9),
            "source": entry.source,
        }


def _gb(amount: float | None) -> str:
    return "" if amount is None else f"{amount:.2f}".rstrip("0").rstrip(".")
