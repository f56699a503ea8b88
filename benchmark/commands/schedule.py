"""schedule: the group and learning rate of each step of a HiFT run."""

from typing import Annotated

import typer

from benchmark.commands.options import MOST, TableFormat, Wide, positive
from benchmark.console import Format, show


def schedule(
    model: Annotated[
        str, typer.Argument(help="A name of `list models`, a local folder or a Hub id.")
    ],
    group_size: Annotated[int, typer.Option(min=1, max=MOST, help="m, units per group.")] = 1,
    order: Annotated[
        str, typer.Option(help="bottom2up, top2down, random, reshuffle, sample or importance.")
    ] = "bottom2up",
    partition: Annotated[
        str, typer.Option(help="What a unit is: units (layers), modules, or rows:N, as rows:32M.")
    ] = "units",
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="The seed of the random order.")
    ] = 0,
    dwell: Annotated[int, typer.Option(min=1, max=MOST, help="Steps per group.")] = 1,
    steps: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Optimizer steps of the run.")
    ] = 40,
    mode: Annotated[str, typer.Option(help="paper, or reference: the authors' code.")] = "paper",
    lr: Annotated[float, typer.Option(callback=positive, help="The base learning rate.")] = 1.0,
    shape: Annotated[str, typer.Option(help="linear, cosine or constant.")] = "linear",
    warmup_steps: Annotated[int, typer.Option(min=0, max=MOST)] = 0,
    format: TableFormat = Format.text,
    wide: Wide = False,
) -> None:
    """Print the schedule of a HiFT run: group, units, learning rate and trainable ratio of each step."""
    from benchmark.timing import preview

    rows = preview.schedule(
        model,
        group_size=group_size,
        order=order,
        seed=seed,
        dwell=dwell,
        steps=steps,
        mode=mode,
        partition=partition,
        lr=lr,
        shape=shape,
        warmup_steps=warmup_steps,
    )
    show(list(rows), format, wide=wide)
