"""memory: peak memory of a training step, simulated, compared with a budget, or measured."""

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark.commands.options import (
    RESULTS,
    Results,
    StrategyOptions,
    TableFormat,
    say,
    strategy_options,
)
from benchmark.console import Format, show
from benchmark.errors import UserError
from benchmark.sizes import GIB, parse_bytes


def memory(
    model: Annotated[str, typer.Argument(help="A known shape, a local folder or a Hub id.")],
    strategy: Annotated[str, typer.Option(help="Names, with commas.")] = "hift",
    optimizer: Annotated[str, typer.Option(help="adamw, sgdm, adafactor, ...")] = "adamw",
    precision: Annotated[
        str, typer.Option(help="fp32, bf16, fp16, mixed (all masters on the device) or mixed_hi.")
    ] = "fp32",
    batch_size: Annotated[int, typer.Option()] = 8,
    seq_len: Annotated[int, typer.Option()] = 512,
    group_size: Annotated[
        int | None, typer.Option(min=1, help="HiFT's m, units per group. Default: 1.")
    ] = None,
    order: Annotated[str | None, typer.Option(help="HiFT's order. Default: bottom2up.")] = None,
    option: StrategyOptions = None,
    attention: Annotated[
        str | None, typer.Option(help="eager or sdpa. Default: the choice of transformers.")
    ] = None,
    checkpointing: Annotated[bool, typer.Option("--checkpointing")] = False,
    budget: Annotated[
        str | None, typer.Option(help="24GiB, 24GB (10^9), 80G (2^30) or plain bytes.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Run the step too, and write a record.")
    ] = False,
    device: Annotated[
        str, typer.Option(help="The device whose peak is simulated: cuda or cpu.")
    ] = "cuda",
    results: Results = RESULTS,
    format: TableFormat = Format.text,
) -> None:
    """Simulate the peak memory of a step: its parts, whether it fits a budget, and what would fit."""
    from benchmark.memory import answer
    from benchmark.memory.setting import Setting
    from benchmark.strategies import share_options

    if measure and budget is not None:
        raise UserError("--budget: is for a simulated peak; leave out --measure")
    limit = parse_bytes(budget) if budget is not None else None
    names = [name.strip() for name in strategy.split(",")]
    options = share_options(names, strategy_options(option, group_size=group_size, order=order))
    settings = [
        Setting(
            model=model,
            strategy=name,
            options=options[name],
            optimizer=optimizer,
            precision=precision,
            batch_size=batch_size,
            seq_len=seq_len,
            attention=attention,
            checkpointing=checkpointing,
        )
        for name in names
    ]
    if measure:
        rows = [answer.measured(setting, Path(results) / "memory", say) for setting in settings]
    else:
        if limit is not None:
            answer.check_any_fits(settings, limit, device)
        rows = [answer.simulated(setting, limit, device, say) for setting in settings]
    title = ""
    if format in (Format.text, Format.md):
        rows = [_in_gib(row) for row in rows]
    if format is Format.text:
        title = ", ".join(_said(key, rows[0][key]) for key in answer.NAMED if rows[0][key])
        rows = [{k: v for k, v in row.items() if k not in answer.NAMED} for row in rows]
    if format is Format.text and len(rows) == 1:  # one row is printed as a column
        rows = [{"": name, "value": value} for name, value in rows[0].items()]
    show(rows, format, title=title)
    if not measure:
        say(
            f"simulated for {device}: tensors only, every text {seq_len} tokens long. The context of the "
            "device and the fragmentation of its allocator take memory besides."
        )


def _in_gib(row: dict[str, Any]) -> dict[str, Any]:
    """`row` with its bytes in GiB, to four digits, and "_gib" in place of "_bytes" in their names."""
    return {
        key.replace("_bytes", "_gib"): float(f"{value / GIB:.4g}")
        if "_bytes" in key and value
        else value
        for key, value in row.items()
    }


def _said(key: str, value: Any) -> str:
    return value if isinstance(value, str) else key if value is True else f"{key} {value}"
