"""fit: settings of HiFT that train all parameters of a model within given memory, the best first."""

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark.commands.options import MOST, REPORTS, TableFormat, Wide, say
from benchmark.console import Format, show, turned
from benchmark.errors import UserError
from benchmark.records.folders import Folder
from benchmark.sizes import parse_bytes, readable

OUT = REPORTS / Folder.fit


def fit(
    model: Annotated[
        str | None, typer.Argument(help="A name of `list models`, a local folder or a Hub id.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Device memory: 24GiB, 24GB (10^9), 80G (2^30).")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Host memory, such as 64GiB. Default: any amount.")
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=2, max=MOST, help="Tokens of one optimizer step.")
    ] = 4096,
    seq_len: Annotated[
        int | None,
        typer.Option(
            min=2, max=MOST, help="The length of each sequence. Default: 1,024, or what there is."
        ),
    ] = None,
    gpu: Annotated[
        str, typer.Option(help="rtx4090, a100, h200, or a YAML file with the keys of one.")
    ] = "rtx4090",
    most: Annotated[int, typer.Option(min=1, help="The most rows.")] = 2,
    all_: Annotated[
        bool, typer.Option("--all", help="Write the page of many models and budgets.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="The folder for --all. Default: reports/fit.")
    ] = None,
    format: TableFormat = Format.text,
    wide: Wide = False,
) -> None:
    """Search HiFT's settings for those that fit device and host memory, and predict what they cost."""
    if all_:
        if model or budget or host:
            raise UserError("--all: takes no model, no --budget and no --host")
        _write_page(out or OUT, gpu)
        return
    if model is None or budget is None:
        raise UserError("fit: name a model and give --budget, or give --all")
    if out is not None:
        raise UserError("--out: is where --all writes; one model goes to stdout")
    from benchmark.commands.progress import counting
    from benchmark.memory import roofline, search

    device, room = _amount("--budget", budget), (host and _amount("--host", host)) or None
    length = min(seq_len, tokens) if seq_len else search.sequence_length(model, tokens)
    on = roofline.gpu(gpu)
    answers = search.search(model, device, room, tokens=tokens, seq_len=length, on=on)
    found: list[search.Found] = []
    missing: list[search.Missing] = []
    with counting("searching") as report:
        for done, answer in enumerate(answers, start=1):
            if isinstance(answer, search.Found):
                found.append(answer)
            else:
                missing.append(answer)
            report(done, len(search.RECIPES))
            if len(found) == most:
                break
    rows = [_row(each) for each in found]
    if format is not Format.text:
        show(rows, format)
    elif wide or not rows:
        show(rows, format, title=model, empty="nothing fits", wide=wide)
    else:
        shown = [{k: v for k, v in row.items() if k not in NOT_SHOWN} for row in rows]
        numbers = [str(number) for number, _ in enumerate(rows, start=1)]
        show(turned([_readable(row) for row in shown], numbers), format, title=model)
    for each in missing:
        said = f"{each.setting.optimizer} in {each.setting.precision}"
        say(f"{said} needs {each.lacks(device, room)}")
    for first in found[:1]:
        say(f"the first, simulated: {first.command()}")
        say(f"the first, in a loop: {first.call()}")
    say("peaks are simulated, times a lower bound from a roofline (benchmark/memory/roofline.py).")


NOT_SHOWN = ("spec", "command", "call")
"""Columns for programs."""


def _write_page(out: Path, gpu: str) -> None:
    from benchmark.commands.progress import counting
    from benchmark.tables import fitting

    with counting("searching") as report:
        path = fitting.write(out, gpu, report)
    typer.echo(path)


def _amount(flag: str, text: str) -> int:
    try:
        return parse_bytes(text)
    except UserError as error:
        raise UserError(f"{flag}: {error}") from None


def _row(found: Any) -> dict[str, Any]:
    setting = found.setting
    return {
        "precision": setting.precision,
        "optimizer": setting.optimizer,
        **{name: value for name, value in setting.options.items() if name != "boundaries"},
        "checkpointing": setting.checkpointing,
        "boundaries": setting.options.get("boundaries", "device"),
        "loss": setting.loss,
        "batch": f"{found.micro_batches} x {setting.batch_size} x {setting.seq_len}",
        "device_bytes": found.peak.total,
        "host_bytes": found.peak.host,
        "moved_bytes": round(found.cost.moved),
        "step_s": float(f"{found.cost.seconds:.3g}"),
        "command": found.command(),
        "call": found.call(),
        "spec": found.spec(),
    }


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key.removesuffix("_bytes"): readable(value) if key.endswith("_bytes") else value
        for key, value in row.items()
    }
