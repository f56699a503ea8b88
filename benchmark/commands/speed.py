"""speed: what a step of each strategy costs, as ratios measured in one run."""

from typing import Annotated

import typer

from benchmark.commands.options import TableFormat
from benchmark.table import Format, show


def speed(
    model: Annotated[
        str, typer.Argument(help="A known shape, a local folder or a Hub id.")
    ] = "gpt2-12x512",
    strategies: Annotated[str, typer.Option(help="Names, with commas.")] = "full,hift,lora",
    group_size: Annotated[int, typer.Option(min=1, help="HiFT's m.")] = 1,
    optimizer: Annotated[str, typer.Option(help="The optimizer of every strategy.")] = "adamw",
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    seq_len: Annotated[int, typer.Option(min=1)] = 128,
    sweeps: Annotated[int, typer.Option(min=1, help="Timed sweeps of HiFT.")] = 3,
    evaluation: Annotated[
        bool, typer.Option(help="Evaluation instead, on twins, against transformers' own.")
    ] = False,
    format: TableFormat = Format.text,
) -> None:
    """Time strategies in turn on random weights: ratios to full fine-tuning, measured in one run."""
    from benchmark import speed as timing
    from benchmark.progress import counting

    if evaluation:
        from benchmark import evaluation_speed

        with counting("runs") as report:
            rows = evaluation_speed.measure(batch_size=batch_size, report=report)
        show(rows, format)
        return
    with counting("steps") as report:
        rows = timing.measure(
            model,
            strategies.split(","),
            group_size=group_size,
            optimizer=optimizer,
            batch_size=batch_size,
            seq_len=seq_len,
            sweeps=sweeps,
            report=report,
        )
    show(rows, format)
