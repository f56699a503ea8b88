"""tables: the paper's tables, its values beside ours."""

import enum
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmark.commands.options import REPORTS, RESULTS, Results, Wide, say
from benchmark.console import Format, paragraph, show
from benchmark.errors import UserError
from benchmark.records.folders import Folder

OUT = REPORTS / Folder.paper


class PaperFormat(enum.StrEnum):
    """The formats of every command, and LaTeX and HTML."""

    text = "text"
    json = "json"
    csv = "csv"
    md = "md"
    tex = "tex"
    html = "html"


def tables(
    name: Annotated[str | None, typer.Argument(help="A table; --list names them.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the tables.")] = False,
    all_: Annotated[
        bool, typer.Option("--all", help="Write every table, in every format.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="The folder for --all. Default: reports/paper.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A closed-form table of this shape, folder or Hub id; may be repeated."),
    ] = None,
    group_size: Annotated[int, typer.Option(min=1, help="HiFT's m in a closed-form table.")] = 1,
    simulate: Annotated[
        bool, typer.Option(help="Simulate the peaks that have no record yet, seconds each.")
    ] = False,
    results: Results = RESULTS,
    format: Annotated[PaperFormat, typer.Option(help="How to print.")] = PaperFormat.text,
    wide: Wide = False,
) -> None:
    """Print or write the paper's tables: published values beside ours."""
    from benchmark.commands.progress import counting
    from benchmark.tables import cells, definition, render, simulated

    if [name is not None, list_, all_].count(True) != 1:
        raise UserError("tables: name one table, or give --list or --all")
    if out is not None and not all_:
        raise UserError("--out: is where --all writes; one table goes to stdout")
    if list_:
        if format.value not in list(Format):
            raise UserError(f"--list: --format {format.value}: give one of {', '.join(Format)}")
        brief = ("table", "title", "published_values")
        show(render.overview(), Format(format.value), brief=brief, wide=wide)
        return
    if all_ and (model or group_size != 1):
        raise UserError("--all: takes no --model and no --group-size")
    chosen = render.complete() if all_ else [definition.load(str(name))]
    models = tuple(model or ())
    if simulate:
        settings = [s for table in chosen for s in render.settings(table, models, group_size)]
        with counting("simulations") as report:
            simulated.run(settings, results, report)
    if all_:
        sys.stdout.write(f"{render.write_all(out or OUT, results)}\n")
        return
    rendered = render.render(chosen[0], results, models=models, group_size=group_size)
    if format is PaperFormat.text:
        common, narrow = cells.in_terminal(rendered.shown)
        title = rendered.table.title
        if common and not wide:
            said = "; ".join(f"{name} = {value}" for name, value in common.items())
            title = f"{title}\nIn every row {said}"
        show(rendered.shown, Format.text, title=title, brief=narrow, wide=wide)
        sys.stdout.write("\n")
        for note in rendered.notes:
            paragraph(note)
    else:
        sys.stdout.write(rendered.text(format.value))
    if format in (PaperFormat.json, PaperFormat.csv):  # these formats have no room for notices
        for notice in rendered.notices:
            say(notice)
