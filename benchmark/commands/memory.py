"""memory: peak memory of a training step, simulated, compared with a budget, or measured."""

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
from benchmark.console import Format, show, turned
from benchmark.errors import UserError
from benchmark.records.folders import Folder
from benchmark.sizes import GIB, parse_bytes, readable


def memory(
    model: Annotated[
        str, typer.Argument(help="A name of `list models`, a local folder or a Hub id.")
    ],
    strategy: Annotated[
        str,
        typer.Option(help="Names, with commas; each may have a precision: hift:mixed_hi,lora."),
    ] = "hift",
    optimizer: Annotated[str, typer.Option(help="adamw, sgdm, adafactor, ...")] = "adamw",
    precision: Annotated[
        str,
        typer.Option(
            help="fp32; bf16 or fp16 (autocast over fp32 weights); bf16_weights; mixed (bf16 weights, all "
            "masters on the device); mixed_hi (those of the active group)."
        ),
    ] = "fp32",
    batch_size: Annotated[int, typer.Option(max=MOST)] = 8,
    seq_len: Annotated[int, typer.Option(max=MOST)] = 512,
    group_size: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="HiFT's m, units per group. Default: 1.")
    ] = None,
    order: Annotated[str | None, typer.Option(help="HiFT's order. Default: bottom2up.")] = None,
    option: StrategyOptions = None,
    attention: Annotated[
        str | None, typer.Option(help="eager or sdpa. Default: the choice of transformers.")
    ] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Blocks recompute their activations.")
    ] = False,
    loss: Annotated[
        str, typer.Option(help="whole, or chunked: a causal LM's logits a few tokens at a time.")
    ] = "whole",
    update: Annotated[
        str | None, typer.Option(help="HiFT's: step, or in_backward. Default: step.")
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(help="HiFT's: units, modules, or rows:N, as rows:32M. Default: units."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="HiFT's: resident, or stream. Default: resident.")
    ] = None,
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
    wide: Wide = False,
) -> None:
    """Simulate the peak memory of a step: its parts, whether it fits a budget, and what would fit."""
    from benchmark.commands.progress import counting
    from benchmark.memory import answer
    from benchmark.memory.setting import Setting
    from benchmark.strategies import share_options

    if measure and budget is not None:
        raise UserError("--budget: is for a simulated peak; leave out --measure")
    limit = parse_bytes(budget) if budget is not None else None
    rows_asked = [name.strip().partition(":") for name in strategy.split(",")]
    options = share_options(
        dict.fromkeys(name for name, _, _ in rows_asked),
        strategy_options(
            option,
            group_size=group_size,
            order=order,
            update=update,
            partition=partition,
            weights=weights,
        ),
    )
    settings = [
        Setting(
            model=model,
            strategy=name,
            options=options[name],
            optimizer=optimizer,
            precision=own or precision,
            batch_size=batch_size,
            seq_len=seq_len,
            attention=attention,
            checkpointing=checkpointing,
            loss=loss,
        )
        for name, _, own in rows_asked
    ]
    if measure:
        rows = [answer.measured(setting, results / Folder.memory, say) for setting in settings]
        _show(rows, format, wide)
        return
    with counting("simulating") as report:
        rows = []
        for setting in settings:
            rows.append(answer.simulated(setting, limit, device))
            report(len(rows), len(settings))
    if format is Format.text:  # the answer comes first: what would fit takes many simulations more
        _show(rows, format, wide)
        for row in rows:
            say(answer.verdict(row))
    if limit is not None:
        with counting("searching for what fits") as report:
            most = []
            for setting in settings:
                most.append(answer.most(setting, limit, device))
                report(len(most), len(settings))
        if format is Format.text:
            names = [_name(row, rows) for row in rows]
            show([{"strategy": n} | m for n, m in zip(names, most, strict=True)], format)
        if not any(found["most_batch_size"] for found in most):
            say(f"budget of {readable(limit)}: {answer.smallest(settings, device)}")
        rows = [row | found for row, found in zip(rows, most, strict=True)]
    if format is not Format.text:
        _show(rows, format, wide)
    say(
        f"simulated for {device}: tensors only, every text {seq_len} tokens long. The context of the "
        "device and the fragmentation of its allocator take memory besides."
    )


def _show(rows: list[dict[str, Any]], format: Format, wide: bool) -> None:
    """Print the rows: in GiB for people, in bytes for programs; as text, a column each."""
    from benchmark.memory.answer import NAMED

    if format in (Format.text, Format.md):
        rows = [_in_gib(row) for row in rows]
    if wide or format is not Format.text:
        show(rows, format, wide=wide)
        return
    shared = [key for key in NAMED if len({row[key] for row in rows}) == 1]
    title = ", ".join(
        _said(key, rows[0][key]) for key in shared if rows[0][key] not in (None, False, "whole")
    )
    left = [{k: v for k, v in row.items() if k not in {"strategy", *shared}} for row in rows]
    show(turned(left, [_name(row, rows) for row in rows]), format, title=title)


def _name(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The row's strategy, with its precision if the rows differ in that."""
    name: str = row["strategy"]
    return name if len({r["precision"] for r in rows}) == 1 else f"{name}:{row['precision']}"


def _in_gib(row: dict[str, Any]) -> dict[str, Any]:
    """`row` with its bytes in GiB, to four digits, and "_gib" in place of "_bytes" in their names."""
    return {
        key.replace("_bytes", "_gib"): float(f"{value / GIB:.4g}")
        if "_bytes" in key and value
        else value
        for key, value in row.items()
    }


def _said(key: str, value: Any) -> str:
    if isinstance(value, str):
        return "chunked loss" if key == "loss" else value
    return key if value is True else f"{key} {value}"
