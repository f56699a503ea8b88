"""The commands on a matrix: plan, run, status, report and sync."""

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark.commands.options import (
    REPORTS,
    RESULTS,
    DataRoot,
    MatrixFile,
    Reports,
    Results,
    TableFormat,
    TrackingUri,
    say,
    use_mirror,
)
from benchmark.console import Format, show


def plan(
    matrix: MatrixFile,
    results: Results = RESULTS,
    data_root: DataRoot = None,
    memory: Annotated[
        bool,
        typer.Option("--memory", help="Simulate each cell's training step for its peak memory."),
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(
            help="As --memory, and name the cells above this: 24GiB, 80G or a number of bytes."
        ),
    ] = None,
    format: TableFormat = Format.text,
) -> None:
    """List every run of a matrix: its state, its predicted steps, and the files it needs and lacks."""
    from benchmark.matrices import forecast, planning, pricing
    from benchmark.matrices import matrix as matrices

    use_mirror(data_root)
    limit = None
    if budget is not None:
        from benchmark.sizes import parse_bytes

        limit = parse_bytes(budget)
    planned = planning.plan(matrices.load(matrix), results)
    missing = pricing.absent(planned)
    peaks = forecast.of(planned, forecast.simulated) if memory or budget is not None else None
    show(pricing.rows(planned, missing, peaks, limit), format)
    for line in pricing.summary(planned, missing, peaks, limit):
        say(line)
    for line in planning.damaged(planned, results):
        say(line)


def run(
    matrix: MatrixFile,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="At most this many runs, and the learning-rate trials they need."),
    ] = None,
    no_warm: Annotated[
        bool,
        typer.Option(
            "--no-warm", help="Start a new Python interpreter for each run, which is slower."
        ),
    ] = False,
    keep_model: Annotated[
        bool,
        typer.Option(
            "--keep-model",
            help="Save each trained model in results/<matrix>/models, as `keep` does.",
        ),
    ] = False,
    format: TableFormat = Format.text,
) -> None:
    """Run what is not done of a matrix, a process each; then write the report and print the summary."""
    from benchmark.commands.progress import bars
    from benchmark.matrices import matrix as matrices
    from benchmark.matrices import planning, runner
    from benchmark.tracking import uris
    from benchmark.tracking.tracker import Tracker

    use_mirror(data_root)
    loaded = matrices.load(matrix)
    loaded = loaded.keeping() if keep_model else loaded
    runner.check(loaded)
    store = uris.usable(tracking_uri)
    planned = planning.plan(loaded, results)
    for line in planning.damaged(planned, results):
        say(line)
    before = [p.state for p in planned]
    todo = [p for p in planned if p.state not in planning.SETTLED]
    with Tracker(store, loaded.name) as tracker:
        with bars(len(todo)) as progress:
            outcome = runner.run(
                loaded, results, tracker=tracker, progress=progress, limit=limit, warm=not no_warm
            )
        tracker.fill(_all_records(loaded, results))
        written = _write_report(loaded, results, reports)
        tracker.report(written.parent)
        _show_summary(loaded, results, format)
    say(closing_line(outcome.ended, before, total=len(planning.plan(loaded, results))))
    if outcome.removed:
        left = ", ".join(folder.name for folder in outcome.removed)
        say(
            f"removed the weights of unfinished runs that no run of the matrix goes on from: {left}"
        )
    if outcome.fixed_s:
        fixed = sorted(outcome.fixed_s)[len(outcome.fixed_s) // 2]
        say(f"fixed cost per run (start, model, data, records): {fixed:.1f} s (median)")
    say(f"report:    {written}")
    for picture in sorted((written.parent / "plots").glob("pareto_*.png")):
        say(f"picture:   {picture}")
    option = f" --tracking-uri {uris.without_password(store)}" if tracking_uri else ""
    say(f"dashboard: {_command()} dashboard{option}")
    say(
        "           then open http://127.0.0.1:5000, or the address that it prints if that is taken"
    )
    for reason in dict.fromkeys(outcome.refused):
        say(f"hift-bench: {reason}")
    if outcome.refused:
        raise typer.Exit(2)
    if outcome.failed:
        raise typer.Exit(1)


def status(
    matrix: MatrixFile,
    results: Results = RESULTS,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="First wait until no run is left, and show how far it is."),
    ] = False,
    format: TableFormat = Format.text,
) -> None:
    """Print the summary table of a matrix from its records."""
    from benchmark.matrices import matrix as matrices

    loaded = matrices.load(matrix)
    if watch:
        from rich.console import Console

        from benchmark.commands import watch as watching

        watching.watch(loaded, results, Console(stderr=True))
    _show_summary(loaded, results, format, note=say)


def report(matrix: MatrixFile, results: Results = RESULTS, reports: Reports = REPORTS) -> None:
    """Write reports/<matrix>/index.html, report.md and CSV files from the records alone."""
    from benchmark.matrices import matrix as matrices

    sys.stdout.write(f"{_write_report(matrices.load(matrix), results, reports)}\n")


def sync(matrix: MatrixFile, results: Results = RESULTS, tracking_uri: TrackingUri = None) -> None:
    """Log the records of a matrix to MLflow; runs that MLflow already has are left out."""
    from benchmark.matrices import matrix as matrices
    from benchmark.tracking import uris
    from benchmark.tracking.tracker import Tracker

    loaded = matrices.load(matrix)
    with Tracker(uris.usable(tracking_uri), loaded.name, patience=SYNC_PATIENCE_S) as tracker:
        tracker.fill(_all_records(loaded, results, note=say))
    if not tracker.filled:  # the tracker has printed the reason
        raise typer.Exit(1)


SYNC_PATIENCE_S = 30.0
"""Seconds that `sync` waits for one answer of a store."""
ENDS = ("trained", "evaluated", "failed", "refused", "unsupported", "already done", "left")
"""The counts of the closing line, in its order. A run is in exactly one of them."""


def closing_line(ended: Mapping[str, int], before: Iterable[str], *, total: int) -> str:
    """The counts of all `total` runs of a matrix, lr trials included: "3 trained, 1 refused, 16 left".

    ended: how the runs of this call ended (`runner.Outcome.ended`). before: the state of each run before it.
    Runs that were unsupported before count as unsupported. Left are the runs that were not started: those
    beyond the limit, and those whose learning rate could not be chosen.
    """
    counts = Counter(ended)
    for state in before:
        if state == "done":
            counts["already done"] += 1
        elif state == "unsupported":
            counts["unsupported"] += 1
    counts["left"] = total - counts.total()
    return ", ".join(f"{counts[end]} {end}" for end in ENDS if counts[end])


def _all_records(
    matrix: Any, results: Path, note: Callable[[str], None] = lambda line: None
) -> list[tuple[Any, Path]]:
    """The records of a matrix, trials included, each with its folder; `note` as in `record.load_all`."""
    from benchmark.records import record

    folders = (results / matrix.name / "search", results / matrix.name)
    return [(one, folder) for folder in folders for one in record.load_all(folder, note)]


def _command() -> str:
    """How to call hift-bench from this shell: by its path if it is not on the PATH."""
    return "hift-bench" if shutil.which("hift-bench") else sys.argv[0]


def _write_report(matrix: Any, results: Path, reports: Path) -> Path:
    from benchmark.records import record
    from benchmark.report.page import write_report

    folder = results / matrix.name
    return write_report(
        name=matrix.name,
        description=matrix.description,
        cells=matrix.cells,
        records=record.load_all(folder, note=say),
        trials=record.load_all(folder / "search", note=say),
        folder=folder,
        out=reports / matrix.name,
    )


def _show_summary(
    matrix: Any, results: Path, format: Format, note: Callable[[str], None] = lambda line: None
) -> None:
    """Print the summary table; `note` gets a line about each file that is passed over."""
    from benchmark.analysis import summary, verdicts
    from benchmark.records import record

    folder = results / matrix.name
    records = record.load_all(folder, note)
    rows = summary.rows(matrix.cells, records)
    judged = verdicts.judge(matrix.cells, rows, records, folder)
    table = summary.printable(rows, verdicts.words(judged), verdicts.majorities(judged))
    show(summary.brief(table) if format is Format.text else table, format, title=matrix.name)
