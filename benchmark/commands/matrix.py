"""The commands on a matrix: plan, run, status and sync."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark.commands import engines
from benchmark.commands.options import (
    REPORTS,
    RESULTS,
    DataRoot,
    MatrixFile,
    Reports,
    Results,
    TableFormat,
    TrackingUri,
    Wide,
    parse_duration,
    parse_shard,
    say,
    use_mirror,
)
from benchmark.console import Format, paragraph, show
from benchmark.errors import UserError
from benchmark.records.folders import Folder


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
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Train a few steps of each cell that was not run on this machine, for the hours.",
        ),
    ] = False,
    format: TableFormat = Format.text,
    wide: Wide = False,
) -> None:
    """List every run of a matrix: its state, its predicted steps, and the files it needs and lacks."""
    from benchmark.matrices import forecast, hours, planning, pricing
    from benchmark.matrices import matrix as matrices

    use_mirror(data_root)
    limit = None
    if budget is not None:
        from benchmark.sizes import parse_bytes

        limit = parse_bytes(budget)
    planned = planning.plan(matrices.load(matrix), results)
    missing = pricing.absent(planned)
    peaks = forecast.of(planned, forecast.simulated) if memory or budget is not None else None
    show(pricing.rows(planned, missing, peaks, limit), format, brief=pricing.BRIEF, wide=wide)
    for line in pricing.summary(planned, missing, peaks, limit):
        say(line)
    for line in planning.damaged(planned, results):
        say(line)
    paces = hours.recorded(planned)
    if calibrate:
        from benchmark.commands.progress import bars

        paces |= hours.calibrated(planned, paces, bars)
    if any(p.to_do for p in planned):
        time = hours.expected(planned, paces)
        say(f"time: {time}{': --calibrate' if time.unknown and not calibrate else ''}")


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
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            help="Runs at once, which share out threads and GPUs. Default: 1, and 64 jobs of a cluster.",
        ),
    ] = None,
    engine: Annotated[
        engines.Name,
        typer.Option(help="Where runs are made: by this machine, or as jobs of slurm or ray."),
    ] = engines.Name.workers,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            help="A setting of the jobs, as submitit names it: slurm_partition=gpu, gpus_per_node=1, "
            "mem_gb=40, timeout_min=240, …"
        ),
    ] = None,
    ray: Annotated[
        list[str] | None,
        typer.Option(
            help="A setting of the tasks, as Ray names it: num_cpus=4, num_gpus=1, …; or address=auto, "
            "the address of a cluster. Without one, and without RAY_ADDRESS, it starts here."
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="2/4: the second of four parts of the matrix, for a scheduler."),
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option(help="End a run after this time, such as 90s, 30min or 2h.")
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Repeat runs that ran out of memory or diverged.")
    ] = False,
    no_warm: Annotated[
        bool,
        typer.Option(
            "--no-warm", help="Start a new Python interpreter for each run, which is slower."
        ),
    ] = False,
    notify: Annotated[
        str | None,
        typer.Option(
            help="When the matrix ends, ring the bell (bell) or post to this webhook URL."
        ),
    ] = None,
    keep_model: Annotated[
        bool,
        typer.Option(
            "--keep-model",
            help="Save each trained model in results/<matrix>/models, as `keep` does.",
        ),
    ] = False,
    format: TableFormat = Format.text,
    wide: Wide = False,
) -> None:
    """Run what is not done of a matrix, a process each; then write the report and print the summary."""
    from benchmark.commands import notice
    from benchmark.commands.closing import Closing
    from benchmark.commands.progress import bars
    from benchmark.matrices import matrix as matrices
    from benchmark.matrices import planning, runner
    from benchmark.tracking import uris
    from benchmark.tracking.tracker import Tracker

    use_mirror(data_root)
    loaded = matrices.load(matrix)
    loaded = loaded.keeping() if keep_model else loaded
    share, limit_s = parse_shard(shard), parse_duration("--time-limit", time_limit)
    settled = planning.RETRIED if retry else planning.SETTLED
    opened, limits = engines.chosen(engine, workers, not no_warm, slurm, ray)
    runner.check(loaded)
    store = uris.usable(tracking_uri)
    notice.check(notify)
    planned = planning.plan(loaded, results)
    for line in planning.damaged(planned, results):
        say(line)
    todo = [p for p in share.part(planned, loaded.cells) if p.state not in settled]
    with (
        notice.at_end(notify, loaded.name) as note,
        Tracker(store, loaded.name, loaded.description) as tracker,
    ):
        with bars(len(todo)) as progress:
            outcome = runner.run(
                loaded,
                results,
                tracker=tracker,
                progress=progress,
                limit=limit,
                engine=opened,
                room=limits,
                share=share,
                settled=settled,
                limit_s=limit_s,
            )
        tracker.fill(_all_records(loaded, results))
        written = _report(loaded, results, reports)
        if written:
            tracker.report(written)
        _show_summary(loaded, results, format, wide)
        after = planning.plan(loaded, results)
        asked = {
            p.run_id
            for p in share.part(after, loaded.cells)
            if limit is None or p.run_id in outcome.ends
        }
        closing = Closing(outcome.ends, planned, after, asked, settled)
        note(closing.line)
    say(closing.line)
    for line in closing.others(results):
        say(line)
    if outcome.removed:
        left = ", ".join(folder.name for folder in outcome.removed)
        say(
            f"removed the weights of unfinished runs that no run of the matrix goes on from: {left}"
        )
    if outcome.fixed_s:
        fixed = sorted(outcome.fixed_s)[len(outcome.fixed_s) // 2]
        say(f"fixed cost per run (start, model, data, records): {fixed:.1f} s (median)")
    if written:
        say(f"report:    {written}")
    option = f" --tracking-uri {uris.without_password(store)}" if tracking_uri else ""
    say(f"dashboard: {_command()} dashboard{option}")
    say(
        "           then open http://127.0.0.1:5000, or the address that it prints if that is taken"
    )
    for reason in dict.fromkeys(outcome.refused):
        say(f"hift-bench: {reason}")
    if closing.code:
        raise typer.Exit(closing.code)


def status(
    matrix: MatrixFile,
    results: Results = RESULTS,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="First wait until no run is left, and show how far it is."),
    ] = False,
    format: TableFormat = Format.text,
    wide: Wide = False,
) -> None:
    """Print the summary table of a matrix from its records."""
    from benchmark.matrices import matrix as matrices

    loaded = matrices.load(matrix)
    if watch:
        from rich.console import Console

        from benchmark.commands import watch as watching

        watching.watch(loaded, results, Console(stderr=True))
    _show_summary(loaded, results, format, wide, note=say)


def sync(matrix: MatrixFile, results: Results = RESULTS, tracking_uri: TrackingUri = None) -> None:
    """Log the records of a matrix to MLflow; runs that MLflow already has are left out."""
    from benchmark.commands.progress import counting
    from benchmark.matrices import matrix as matrices
    from benchmark.tracking import uris
    from benchmark.tracking.tracker import Tracker

    loaded = matrices.load(matrix)
    store = uris.usable(tracking_uri)
    records = _all_records(loaded, results, note=say)
    with (
        counting("records") as progress,
        Tracker(store, loaded.name, loaded.description, SYNC_PATIENCE_S) as tracker,
    ):
        tracker.fill(records, progress)
    if not tracker.filled:  # the tracker has printed the reason
        raise typer.Exit(1)
    there = len(records) - tracker.logged
    sys.stdout.write(
        f"{tracker.logged} of {len(records)} records logged to {uris.without_password(store)}"
        f"{f', the other {there} were there' if there else ''}\n"
    )


SYNC_PATIENCE_S = 30.0
"""Seconds that `sync` waits for one answer of a store."""


def _all_records(
    matrix: Any, results: Path, note: Callable[[str], None] = lambda line: None
) -> list[tuple[Any, Path]]:
    """The records of a matrix, trials included, each with its folder; `note` as in `record.load_all`."""
    from benchmark.records import record

    folders = (results / matrix.name / "search", results / matrix.name)
    return [(one, folder) for folder in folders for one in record.load_all(folder, note)]


def _report(matrix: Any, results: Path, reports: Path) -> Path | None:
    """Write the report; None where one of more runs is there, which is said and stays."""
    from benchmark.commands.report import write

    try:
        return write(matrix, results, reports)
    except UserError as error:
        say(f"hift-bench: {error}")
        return None


def _command() -> str:
    """How to call hift-bench from this shell: by its path if it is not on the PATH."""
    return "hift-bench" if shutil.which("hift-bench") else sys.argv[0]


def _show_summary(
    matrix: Any,
    results: Path,
    format: Format,
    wide: bool,
    note: Callable[[str], None] = lambda line: None,
) -> None:
    """Print the summary table; `note` gets a line about each file that is passed over."""
    from benchmark.analysis import summary, verdicts
    from benchmark.records import record
    from benchmark.report import terminal
    from benchmark.timing import speed_record

    folder = results / matrix.name
    records = record.load_all(folder, note)
    rows = summary.rows(matrix.cells, records)
    judged = verdicts.judge(matrix.cells, rows, records, folder)
    if wide or format is not Format.text:
        table = summary.printable(rows, verdicts.words(judged), verdicts.majorities(judged))
        show(table, format, title=matrix.name, wide=wide)
        return
    timings = speed_record.read_all(results / Folder.speed)
    for shown in terminal.tables(rows, records, judged, timings):
        show(shown.rows, format, title=f"{matrix.name}: {shown.title}")
        sys.stdout.write("\n")
    for line in terminal.notes(rows, judged):
        paragraph(line)
