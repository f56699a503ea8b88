"""tables: the paper's tables, paper beside ours."""

import enum
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmark.commands.options import RESULTS, Results, say
from benchmark.console import Format, show
from benchmark.errors import UserError

OUT = Path("reports/paper")


class PaperFormat(enum.StrEnum):
    """The formats of every command, and two for papers and pages."""

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
        Path | None, typer.Option(help="Where --all writes; reports/paper without it.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A closed-form table of this shape, folder or Hub id; may be repeated."),
    ] = None,
    group_size: Annotated[int, typer.Option(min=1, help="HiFT's m in a closed-form table.")] = 1,
    simulate: Annotated[
        bool, typer.Option(help="Simulate the peaks not on record yet: seconds each.")
    ] = False,
    results: Results = RESULTS,
    format: Annotated[PaperFormat, typer.Option(help="How to print.")] = PaperFormat.text,
) -> None:
    """Regenerate the paper's tables: trainable parameters, memory, scores; paper beside ours."""
    from benchmark.commands.progress import counting
    from benchmark.tables import definition, render, simulated

    if [name is not None, list_, all_].count(True) != 1:
        raise UserError("tables: name one table, or give --list or --all")
    if out is not None and not all_:
        raise UserError("--out: is where --all writes; one table goes to stdout")
    if list_:
        if format.value not in list(Format):
            raise UserError(f"--list: --format {format.value}: give one of {', '.join(Format)}")
        show(render.overview(), Format(format.value))
        return
    if all_ and (model or group_size != 1):
        raise UserError("--all: takes no --model and no --group-size")
    chosen = render.complete() if all_ else [definition.load(str(name))]
    models = tuple(model or ())
    if simulate:
        wanted = [s for table in chosen for s in render.settings(table, models, group_size)]
        with counting("simulations") as report:
            simulated.run(wanted, results, report)
    if all_:
        sys.stdout.write(f"{render.write_all(out or OUT, results)}\n")
        return
    made = render.render(chosen[0], results, models=models, group_size=group_size)
    if format is PaperFormat.text:
        show(made.shown, Format.text, title=made.table.title)
        sys.stdout.write("".join(f"{note}\n" for note in made.notes))
    else:
        sys.stdout.write(made.text(format.value))
    if format in (PaperFormat.json, PaperFormat.csv):  # which hold the rows alone
        for notice in made.notices:
            say(notice)
