"""What tells strategies apart beside their names: options, settings, and measured step times."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmark.analysis.summary import Row
from benchmark.errors import UserError
from benchmark.records.consistency import resolved
from benchmark.records.record import RunRecord
from benchmark.strategies import checked_options
from benchmark.timing import speed_record
from benchmark.timing.speed_record import Timed

SHORT = {"group_size": "m"}
"""The paper's names of options."""
ALWAYS = ("group_size", "order", "r")
"""Options that are shown whatever their value: m and the order of groups, and the rank of an adapter."""
_ELSEWHERE = {
    *("matrix", "task", "task_version", "model", "model_revision", "strategy", "label", "options"),
    *("seed", "lr", "demonstrations"),
}
"""Fields of a spec that another column shows, or that name the run."""


def texts(rows: Sequence[Row], records: Iterable[RunRecord]) -> dict[Row, str]:
    """The options and settings of each row by which the strategies of its task and model differ.

    They are the options that the matrix sets to something else than their default, and the settings that not
    all strategies share. A row without a record has none.
    """
    places: dict[tuple[str, str], list[RunRecord]] = {}
    firsts = _first_records(records)
    for (task, model, _), record in firsts.items():
        places.setdefault((task, model), []).append(record)
    said = {place: _said(mine) for place, mine in places.items()}
    texts = dict.fromkeys(rows, "")
    for row in rows:
        mine = firsts.get((row.task, row.model, row.label))
        if mine is not None:
            names = said[row.task, row.model]
            recorded = mine.spec.get("options", {})
            options = {
                SHORT.get(name, name): value
                for name, value in _options(mine).items()
                if name in ALWAYS or name in recorded
            }
            settings = {name: value for name, value in resolved(mine).items() if name in names}
            shown = {**options, **settings}.items()
            texts[row] = ", ".join(f"{name}={_plain(value)}" for name, value in shown)
    return texts


def _said(records: Sequence[RunRecord]) -> set[str]:
    """The settings in which strategies differ."""
    values: dict[str, set[str]] = {}
    for record in records:
        for name, value in resolved(record).items():
            values.setdefault(name, set()).add(str(value))
    return {name for name, of in values.items() if len(of) > 1 and name not in _ELSEWHERE}


def _options(record: RunRecord) -> dict[str, Any]:
    """The options of the record's strategy with defaults; as recorded where they are not valid today."""
    recorded = dict(record.spec.get("options", {}))
    try:
        return checked_options(record.spec["strategy"], recorded).model_dump()
    except UserError:
        return recorded


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _first_records(records: Iterable[RunRecord]) -> dict[tuple[str, str, str], RunRecord]:
    firsts: dict[tuple[str, str, str], RunRecord] = {}
    for record in records:
        key = (record.spec["task"], record.spec["model"], record.spec["label"])
        firsts.setdefault(key, record)
    return firsts


def step_ratios(
    rows: Sequence[Row], records: Iterable[RunRecord], timings: Iterable[Timed]
) -> dict[Row, str]:
    """The step time of each row over that of full fine-tuning, from the timings of `hift-bench speed --save`.

    A timing counts where model, strategy, its options, the optimizer and checkpointing agree and it is
    conclusive. Of several the last one counts.
    """
    firsts = _first_records(records)
    known: dict[Row, str] = {}
    for timed in sorted(timings, key=lambda timed: timed.started):
        for row in rows:
            mine = firsts.get((row.task, row.model, row.label))
            if mine is not None and (ratio := _timed_ratio(timed, mine)) is not None:
                known[row] = f"{ratio:.2f}"
    return known


def _timed_ratio(timed: Timed, record: RunRecord) -> float | None:
    spec: Mapping[str, Any] = record.spec
    if timed.model != spec["model"] or timed.optimizer != resolved(record).get("optimizer"):
        return None
    if timed.checkpointing != spec.get("checkpointing", False):
        return None
    own = _options(record)
    shared = {name: value for name, value in timed.options.items() if name in own}
    for row in timed.rows:
        if (row.strategy or row.name) != spec["strategy"] or speed_record.noise(timed, row):
            continue
        with contextlib.suppress(UserError):  # options of another version
            if checked_options(spec["strategy"], shared | row.options).model_dump() == own:
                return row.ratio_to_full
    return None
