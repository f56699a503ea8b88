"""Writes the report of a matrix from its records: index.html, report.md, cells.csv, differences.csv,
learning.csv and pictures.

index.html is whole in itself: it needs no other file and no other host. Reports are committed, so equal
records give equal bytes. All text from records is escaped: in HTML by Jinja2's autoescape, in Markdown by
`escape_markdown`.
"""

import csv
import functools
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.analysis import summary
from benchmark.analysis.summary import Cell, Row
from benchmark.analysis.verdicts import judge
from benchmark.console import escape_markdown
from benchmark.errors import UserError
from benchmark.records import consistency
from benchmark.records.record import RunRecord
from benchmark.report import answer, learning, pictures, search, tables, texts, verdicts
from benchmark.report.pictures import Gallery
from benchmark.timing.speed_record import Timed

if TYPE_CHECKING:
    from jinja2 import Environment


TEMPLATES = Path(__file__).parent / "templates"
DETAILED = 12
"""Number of comparisons (a task and a model) that a report shows with pictures, pairs, curves and texts. Of
the others it has the scores, and the CSV files have everything."""


def write_report(
    *,
    name: str,
    cells: Iterable[Cell],
    records: Iterable[RunRecord],
    trials: Iterable[RunRecord],
    folder: Path,
    out: Path,
    description: str = "",
    timings: Iterable[Timed] = (),
    replace: bool = False,
) -> Path:
    """Write the report of matrix `name` into the folder `out`; returns the path of index.html.

    `folder` holds the curves and predictions that `records` name; `timings` are those of step times. New
    files are written to a temporary folder and then replace the old ones one by one, index.html last, so a
    crash leaves a readable report. Raises UserError, unless `replace` is set, where `out` has a report of
    more runs.
    """
    cells = list(cells)
    run_ids = {run_id for cell in cells for run_id in cell.run_ids}
    records = [record for record in records if record.run_id in run_ids]
    rows = summary.rows(cells, records)
    if not replace:
        _refuse_to_lose(out, sum(row.n for row in rows))
    judged = judge(cells, rows, records, folder)
    places = list(dict.fromkeys((row.task, row.model) for row in rows))
    shown = places[:DETAILED]
    detailed = [of for of in judged if (of.task, of.model) in shown]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        report = Path(temporary)
        gallery = Gallery(report, rows)
        curves, notices = pictures.curves_of(records, folder, shown)
        page = _page(name, description, rows, records, notices)
        page["answer"] = answer.answer(rows, records, judged, timings)
        page["left_out"] = len(places) - len(shown)
        page["pictures"] = pictures.scores(gallery, rows, detailed, shown)
        page["training_pictures"] = pictures.training(gallery, curves)
        page["verdicts"] = verdicts.sections(detailed, rows)
        page["search"] = search.section(rows, cells, trials, gallery, shown)
        page["learning"] = learning.sections(cells, records, gallery, shown)
        page["texts"] = texts.sections(rows, records, folder, shown)
        page["uneven"], page["with_groups"] = learning.uneven_table(records, folder)
        tables.write_csv(report / "cells.csv", rows)
        verdicts.write_csv(report / verdicts.CSV, judged)
        if any(record.evaluations for record in records):
            learning.write_csv(report / learning.CSV, records)
        write_pages(report, page, {"report.md": "report.md.j2", "index.html": "index.html.j2"})
        replace_report(report, out)
    return out / "index.html"


def write_pages(report: Path, page: dict[str, Any], templates: dict[str, str]) -> None:
    """Write each file of `templates` (name -> template) into `report`, filled with `page`."""
    for file, template in templates.items():
        (report / file).write_text(rendered(template, page), encoding="utf-8")


def rendered(template: str, page: dict[str, Any]) -> str:
    """The text of a template of this room, whose name says whether it is HTML or Markdown."""
    jinja = environment(TEMPLATES, html=template.endswith(".html.j2"))
    jinja.tests["strong"] = lambda cell: isinstance(cell, tables.Strong)
    return jinja.get_template(template).render(page)


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


def runs_held(report: Path) -> int:
    """Number of runs with a score that the report in the folder `report` holds; 0 where there is none."""
    try:
        with open(report / "cells.csv", encoding="utf-8", newline="") as file:
            return sum(int(row["n"]) for row in csv.DictReader(file))
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        return 0


def _refuse_to_lose(out: Path, runs: int) -> None:
    if (held := runs_held(out)) > runs:
        raise UserError(
            f"{out}: has a report of {held} runs, and the records have {runs}; it stays as it is "
            "(hift-bench report --replace replaces it)"
        )


def _page(
    name: str,
    description: str,
    rows: Sequence[Row],
    records: Sequence[RunRecord],
    notices: list[str],
) -> dict[str, Any]:
    differences = consistency.differences(records)
    if any(row.is_twin for row in rows):
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
        "notices": notices,
        "training": tables.training_table(rows),
        "on_cpu": any(row.memory_kind == "counted_cpu_tensors" for row in rows),
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


def replace_report(report: Path, out: Path) -> None:
    """Move the files of `report` over those in `out`, and remove its old pictures and learning.csv."""
    plots = out / pictures.FOLDER
    plots.mkdir(parents=True, exist_ok=True)
    new = {path.relative_to(report) for path in report.rglob("*") if path.is_file()}
    for path in sorted(new, key=lambda path: (path.suffix == ".html", path)):
        os.replace(report / path, out / path)
    for old in (out / learning.CSV, *plots.glob("*.png"), *plots.glob("*.svg")):
        if old.exists() and old.relative_to(out) not in new:
            old.unlink()
