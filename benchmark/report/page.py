"""Writes the report of a matrix from its records: index.html, report.md, cells.csv, differences.csv,
learning.csv and pictures.

Reports are committed, so equal records give equal bytes. All text from records is escaped: in HTML by
Jinja2's autoescape, in Markdown by `escape_markdown`.
"""

import csv
import functools
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.analysis import summary
from benchmark.analysis.summary import Cell, Row
from benchmark.analysis.verdicts import judge
from benchmark.console import escape_markdown
from benchmark.files import file_stem
from benchmark.records import consistency
from benchmark.records.record import RunRecord, read_curve
from benchmark.report import learning, plots, search, tables, texts, verdicts

if TYPE_CHECKING:
    from jinja2 import Environment


TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Picture:
    kind: str
    file: str
    text: str


def write_report(
    *,
    name: str,
    cells: Iterable[Cell],
    records: Iterable[RunRecord],
    trials: Iterable[RunRecord],
    folder: Path,
    out: Path,
    description: str = "",
) -> Path:
    """Write the report of matrix `name` into the folder `out`; returns the path of index.html.

    `folder` holds the curves and predictions that `records` name. New files are written to a temporary folder
    and then replace the old ones one by one, index.html last, so a crash leaves a readable report.
    """
    cells = list(cells)
    run_ids = {run_id for cell in cells for run_id in cell.run_ids}
    records = [record for record in records if record.run_id in run_ids]
    rows = summary.rows(cells, records)
    judged = judge(cells, rows, records, folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        report = Path(temporary)
        pictures, notices = _draw(rows, records, folder, report)
        page = _page(name, description, rows, records, pictures, notices)
        page["scores"] = tables.score_tables(rows, judged)
        page["verdicts"] = verdicts.sections(judged, rows)
        page["search"] = search.section(rows, cells, trials)
        page["learning"] = learning.sections(cells, records, rows, report)
        page["texts"] = texts.sections(rows, records, folder)
        page["uneven"], page["with_groups"] = learning.uneven_table(records, folder)
        tables.write_csv(report / "cells.csv", rows)
        verdicts.write_csv(report / verdicts.CSV, judged)
        for template in ("report.md", "index.html"):
            jinja = environment(TEMPLATES, html=template.endswith(".html"))
            jinja.tests["strong"] = lambda cell: isinstance(cell, tables.Strong)
            text = jinja.get_template(f"{template}.j2").render(page)
            (report / template).write_text(text, encoding="utf-8")
        _replace(report, out)
    return out / "index.html"


@functools.cache
def environment(templates: Path, *, html: bool) -> "Environment":
    """A Jinja environment for the folder `templates` that escapes values for HTML, else for Markdown.

    One for each, because it keeps the compiled templates: compiling takes longer than filling them in.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(templates),
        autoescape=html,
        finalize=None if html else escape_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _page(
    name: str,
    description: str,
    rows: Sequence[Row],
    records: Sequence[RunRecord],
    pictures: Sequence[Picture],
    notices: list[str],
) -> dict[str, Any]:
    differences = consistency.differences(records)
    twin = any(row.is_twin for row in rows)
    if twin:
        notices = [
            "Scores marked twin come from generated data or a model with random weights. They show that "
            "the pipeline works, not how well a method performs on the real task.",
            *notices,
        ]
    if any(record.code.get("dirty") for record in records):
        notices = [*notices, "Some runs were made from code with uncommitted changes."]
    notices = [*notices, *_overlaps(records)]
    return {
        "name": name,
        "description": description,
        "done": sum(row.n for row in rows),
        "expected": sum(row.seeds for row in rows),
        "notices": notices,
        "costs": tables.cost_table(rows),
        "on_cpu": any(row.memory_kind == "counted_cpu_tensors" for row in rows),
        "pictures": pictures,
        "problems": tables.problem_table(rows),
        "differences": tables.difference_table(differences),
        "settings": tables.settings_table(records),
        "provenance": tables.provenance_table(records),
    }


def _overlaps(records: Iterable[RunRecord]) -> list[str]:
    """A line for each task whose scored examples, or their sources, also occur in the training set."""
    most: dict[str, tuple[float, float]] = {}
    for record in records:
        overlap = record.inputs and record.inputs.overlap_eval
        if overlap and overlap.group:
            task = record.spec["task"]
            most[task] = max(most.get(task, (0.0, 0.0)), (overlap.group, overlap.exact))
    return [
        f"{task}: the source of {group:.1%} of the scored examples also occurs in the training set, and "
        f"the whole input of {exact:.1%}."
        for task, (group, exact) in sorted(most.items())
    ]


def _draw(
    rows: Sequence[Row], records: Sequence[RunRecord], folder: Path, report: Path
) -> tuple[list[Picture], list[str]]:
    """Draw every picture that has data into report/plots. Returns them, and a notice for each bad curve."""
    (report / "plots").mkdir()
    colours = plots.styles([row.label for row in rows])
    curves, notices = _curves(records, folder)
    pictures: list[Picture] = []

    def add(kind: str, names: Sequence[str], text: str) -> tuple[Path, str]:
        slug = file_stem(kind, *names)
        if any(picture.file == f"plots/{slug}.png" for picture in pictures):
            slug += f"_{len(pictures)}"
        pictures.append(Picture(kind, f"plots/{slug}.png", text))
        return report / pictures[-1].file, text

    for task in dict.fromkeys(row.task for row in rows):
        mine = [row for row in rows if row.task == task]
        shown = tables.task_name(rows, task)
        if any(row.mean is not None and row.peak_bytes is not None for row in mine):
            path, title = add("pareto", [task], f"{shown}: score against peak memory")
            plots.pareto(path, mine, title=title, colours=colours)
        for model in dict.fromkeys(row.model for row in mine):
            seeds: dict[str, list[plots.Curve]] = {}
            for (curve_task, curve_model, label), of_seeds in curves.items():
                if (curve_task, curve_model) == (task, model):
                    seeds[label] = of_seeds
            if not seeds:
                continue
            of = tables.model_name(rows, model)
            path, title = add("loss", [task, model], f"{shown}, {of}: training loss")
            plots.loss_curves(path, seeds, title=title, colours=colours)
            path, title = add("ratio", [task, model], f"{shown}, {of}: trainable ratio per step")
            first = {label: of_seeds[0] for label, of_seeds in seeds.items()}
            plots.trainable_ratio(path, first, title=title, colours=colours)
    order = ("pareto", "loss", "ratio")
    return sorted(pictures, key=lambda picture: order.index(picture.kind)), notices


def _curves(
    records: Sequence[RunRecord], folder: Path
) -> tuple[Mapping[tuple[str, str, str], list[plots.Curve]], list[str]]:
    """The curves of successful runs by (task, model, label), and a notice for each unreadable one."""
    curves: dict[tuple[str, str, str], list[plots.Curve]] = {}
    notices = []
    for record in records:
        if record.status != "success" or record.curve is None:
            continue
        try:
            curve = read_curve(folder / record.curve)
            missing = {"step", "loss", "trainable_ratio"} - curve.keys()
        except (OSError, ValueError, TypeError, csv.Error) as error:
            notices.append(f"{record.curve}: not drawn, unreadable: {error.__class__.__name__}")
            continue
        if missing:
            notices.append(f"{record.curve}: not drawn, no column {', '.join(sorted(missing))}")
            continue
        key = (record.spec["task"], record.spec["model"], record.spec["label"])
        curves.setdefault(key, []).append(curve)
    return curves, notices


def _replace(report: Path, out: Path) -> None:
    """Move the files of `report` over those in `out`, and remove its old pictures and learning.csv."""
    (out / "plots").mkdir(parents=True, exist_ok=True)
    new = {path.relative_to(report) for path in report.rglob("*") if path.is_file()}
    for path in sorted(new, key=lambda path: (path.suffix == ".html", path)):
        os.replace(report / path, out / path)
    for old in (out / learning.CSV, *(out / "plots").glob("*.png")):
        if old.exists() and old.relative_to(out) not in new:
            old.unlink()
