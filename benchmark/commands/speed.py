"""speed: the step time of each strategy, as ratios measured in one process."""

import datetime
import os
from typing import Annotated, Any

import typer

from benchmark.commands.options import (
    MOST,
    RESULTS,
    Results,
    StrategyOptions,
    TableFormat,
    Wide,
    say,
    strategy_options,
)
from benchmark.console import Format, show
from benchmark.errors import UserError
from benchmark.records.folders import Folder

BRIEF = ("name", "m", "ratio_to_full", "ratio_low", "ratio_high", "ratio_to_limit", "median_ms")
"""The columns of the step times that a terminal shows."""


def speed(
    model: Annotated[
        str, typer.Argument(help="A name of `list models`, a local folder or a Hub id.")
    ] = "gpt2-12x512",
    strategies: Annotated[
        str,
        typer.Option(
            help="Names, with commas; each may have options: full,hift:dwell=8:idle=keep."
        ),
    ] = "full,hift,lora",
    group_size: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST, help="m, units per group, of HiFT and the yardsticks. Default: 1."
        ),
    ] = None,
    option: StrategyOptions = None,
    optimizer: Annotated[str, typer.Option(help="The optimizer of every strategy.")] = "adamw",
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="The strategies recompute activations.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, max=MOST)] = 8,
    seq_len: Annotated[int, typer.Option(min=1, max=MOST)] = 128,
    sweeps: Annotated[int, typer.Option(min=1, max=MOST, help="Timed sweeps of HiFT.")] = 3,
    bare: Annotated[
        bool,
        typer.Option(
            "--bare", help="Time each method's bare loop in plain torch beside it, if it has one."
        ),
    ] = False,
    evaluation: Annotated[
        bool,
        typer.Option(
            help="Time evaluation on twins, beside transformers, instead of training steps."
        ),
    ] = False,
    save: Annotated[
        bool,
        typer.Option("--save", help="Write a record of the step times, for the table `speed`."),
    ] = False,
    results: Results = RESULTS,
    format: TableFormat = Format.text,
    wide: Wide = False,
) -> None:
    """Time the training steps of strategies on random weights, as ratios to full fine-tuning."""
    names = list(dict.fromkeys(name.strip() for name in strategies.split(",")))
    options = strategy_options(option, group_size=group_size)
    if save and evaluation:
        raise UserError("--save: keeps step times; leave out --evaluation")
    if save and "full" not in names:
        raise UserError(f"--save: ratios are to full, which is not among --strategies {strategies}")
    from benchmark.commands.progress import counting
    from benchmark.records import environment
    from benchmark.timing import speed as timing
    from benchmark.timing import speed_record

    if evaluation:
        from benchmark.timing import evaluation_speed

        with counting("runs") as report:
            rows = evaluation_speed.measure(batch_size=batch_size, report=report)
        show(rows, format, wide=wide)
        return
    started, load = datetime.datetime.now(datetime.UTC), speed_record.load()
    if save and speed_record.busy(load, os.cpu_count()):
        say(
            f"the machine is busy (load {load}): if that goes on, the table speed calls these times "
            "inconclusive"
        )
    others = speed_record.others()
    with counting("steps") as report:
        rows = timing.measure(
            model,
            {name: timing.Variant(*_variant(name)) for name in names},
            options=options,
            optimizer=optimizer,
            checkpointing=checkpointing,
            batch_size=batch_size,
            seq_len=seq_len,
            sweeps=sweeps,
            bare=bare,
            report=report,
        )
    own = {"strategy", "options"}  # the name says both
    shown = [{key: row[key] for key in row if key not in own} for row in rows]
    show(shown, format, brief=BRIEF, wide=wide)
    if save:
        timed = speed_record.Timed(
            model=model,
            group_size=options.get("group_size", 1),
            options=options,
            optimizer=optimizer,
            checkpointing=checkpointing,
            batch_size=batch_size,
            seq_len=seq_len,
            sweeps=sweeps,
            started=started.isoformat(timespec="seconds"),
            load=load,
            others=round(others.share(), 4),
            rows=[speed_record.Row(**row) for row in rows],
            environment=environment.environment(),
            code=environment.code(),
        )
        say(f"record: {speed_record.save(timed, results / Folder.speed)}")


def _variant(text: str) -> tuple[str, dict[str, Any]]:
    """The strategy and the options of "hift:dwell=8:idle=keep". Raises UserError for another form."""
    strategy, *pairs = text.split(":")
    try:
        return strategy, strategy_options(pairs)
    except UserError as error:
        raise UserError(f"--strategies {text}: {str(error).removeprefix('--option ')}") from None
