"""fit: settings of HiFT that train all parameters of a model within given memory, the best first."""

from typing import Annotated, Any

import typer

from benchmark.commands.options import TableFormat, say
from benchmark.console import Format, show
from benchmark.errors import UserError
from benchmark.sizes import parse_bytes, readable


def fit(
    model: Annotated[str, typer.Argument(help="A known shape, a local folder or a Hub id.")],
    budget: Annotated[str, typer.Option(help="Device memory: 24GiB, 24GB (10^9), 80G (2^30).")],
    host: Annotated[
        str | None, typer.Option(help="Host memory, such as 64GiB. Default: any amount.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of one optimizer step.")] = 4096,
    seq_len: Annotated[
        int, typer.Option(min=2, help="The length of each sequence, at most --tokens.")
    ] = 1024,
    gpu: Annotated[
        str, typer.Option(help="rtx4090, a100, h200, or a YAML file with the keys of one.")
    ] = "rtx4090",
    most: Annotated[int, typer.Option(min=1, help="The most rows.")] = 2,
    format: TableFormat = Format.text,
) -> None:
    """Search HiFT's settings for those that fit device and host memory, and predict what they cost."""
    from benchmark.commands.progress import counting
    from benchmark.memory import roofline, search

    device, room = _amount("--budget", budget), host and _amount("--host", host)
    on, length = roofline.gpu(gpu), min(seq_len, tokens)
    answers = search.search(model, device, room or None, tokens=tokens, seq_len=length, on=on)
    found: list[Any] = []
    missing: list[Any] = []
    with counting("searching") as report:
        for done, answer in enumerate(answers, start=1):
            (found if isinstance(answer, search.Found) else missing).append(answer)
            report(done, len(search.RECIPES))
            if len(found) == most:
                break
    rows = [_row(each) for each in found]
    if format is Format.text:
        shown = [{k: v for k, v in row.items() if k not in ("spec", "command")} for row in rows]
        show([_readable(row) for row in shown], format, title=model, empty="nothing fits")
    else:
        show(rows, format)
    for each in missing:
        say(_lacks(each, device, room or None))
    for row in rows[:1]:
        say(f"the first: {row['command']}")
    say("peaks are simulated, times a lower bound from a roofline (benchmark/memory/roofline.py).")


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
        **setting.options,
        "checkpointing": setting.checkpointing,
        "loss": setting.loss,
        "batch": f"{found.micro_batches} x {setting.batch_size} x {setting.seq_len}",
        "device_bytes": found.peak.total,
        "host_bytes": found.peak.host,
        "moved_bytes": round(found.cost.moved),
        "step_s": float(f"{found.cost.seconds:.3g}"),
        "command": found.command(),
        "spec": found.spec(),
    }


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key.removesuffix("_bytes"): readable(value) if key.endswith("_bytes") else value
        for key, value in row.items()
    }


def _lacks(missing: Any, budget: int, host: int | None) -> str:
    """What a recipe needs at least, and which of the two amounts that exceeds."""
    setting, peak = missing.setting, missing.peak
    short = [
        f"{readable(needed)} of {name} memory, {readable(given)} given"
        for name, needed, given in (("device", peak.total, budget), ("host", peak.host, host))
        if given is not None and needed > given
    ]
    return f"{setting.optimizer} in {setting.precision} needs " + " and ".join(short)
