"""report: the report of a matrix, the comparison of two, and the index of all."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.commands.options import REPORTS, RESULTS, Reports, Results, say
from benchmark.errors import UserError

if TYPE_CHECKING:
    from benchmark.matrices.matrix import Matrix
    from benchmark.report.compare import Side


def report(
    matrix: Annotated[Path | None, typer.Argument(help="A matrix YAML.")] = None,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            help="Compare two matrices, or two folders with the records of one matrix, instead."
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace a report of more runs than the records have."),
    ] = False,
) -> None:
    """Write the report of a matrix and the index of all reports, from the records alone."""
    from benchmark.matrices import matrix as matrices
    from benchmark.report.index import write_index

    if (matrix is None) == (compare is None):
        raise UserError("report: give one matrix, or --compare and two matrices or folders")
    if compare is not None:
        from benchmark.report.compare import write_comparison

        one, other = _sides(compare, results)
        written = write_comparison(one, other, reports / f"{one.name}_vs_{other.name}")
    else:
        assert matrix is not None
        written = write(matrices.load(matrix), results, reports, replace=replace)
    try:
        write_index(reports)
    except UserError as error:
        say(f"hift-bench: {error}")
    sys.stdout.write(f"{written}\n")


def write(matrix: "Matrix", results: Path, reports: Path, *, replace: bool = False) -> Path:
    """Write the report of `matrix` from results/<matrix> into reports/<matrix>; returns its index.html.

    Raises UserError, unless `replace` is set, where a report of more runs is there.
    """
    from benchmark.records import record
    from benchmark.records.folders import Folder
    from benchmark.report.page import write_report
    from benchmark.timing import speed_record

    folder = results / matrix.name
    return write_report(
        name=matrix.name,
        description=matrix.description,
        cells=matrix.cells,
        records=record.load_all(folder, note=say),
        trials=record.load_all(folder / "search", note=say),
        folder=folder,
        out=reports / matrix.name,
        timings=speed_record.read_all(results / Folder.speed),
        replace=replace,
    )


def _sides(paths: tuple[Path, Path], results: Path) -> "list[Side]":
    """The two sides of a comparison. Raises UserError for a path with no records."""
    from benchmark.matrices import matrix as matrices
    from benchmark.records import record
    from benchmark.report.compare import Side

    sides = []
    for path in paths:
        folder = path if path.is_dir() else results / matrices.load(path).name
        records = record.load_all(folder, note=say)
        if not records:
            raise UserError(f"--compare {path}: no records in {folder}")
        sides.append((folder, records))
    names = [folder.name for folder, _ in sides]
    if names[0] == names[1]:  # the same matrix at two places: named by the first parts that differ
        parts = [folder.resolve().parts[::-1] for folder, _ in sides]
        differ = next((pair for pair in zip(*parts, strict=False) if pair[0] != pair[1]), None)
        if differ is None:
            raise UserError(f"--compare: {paths[0]} and {paths[1]} are the same folder")
        names = [f"{name}-{part}" for name, part in zip(names, differ, strict=True)]
    return [
        Side(name, records, folder) for name, (folder, records) in zip(names, sides, strict=True)
    ]
