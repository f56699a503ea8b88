"""`hift-bench plan`: the cost of a matrix before it runs: steps, missing data and weights, peak memory.

It reads local folders only. It imports no torch, and downloads and builds nothing.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmark.data import hub_cache, sources
from benchmark.errors import UserError
from benchmark.matrices import forecast, planning
from benchmark.matrices.forecast import Forecast, Place, first_spec, place
from benchmark.matrices.foreseen import Fault
from benchmark.matrices.matrix import Cell
from benchmark.matrices.planning import Planned
from benchmark.models import registry
from tasks import own
from tasks.dataset import COMMIT

BRIEF = ("run_id", "state", "steps", "lr", "lacks", "peak_gib", "fits")
"""The columns of `rows` that a terminal shows. A run id with a rate in it is a trial's."""


class Need(NamedTuple):
    """A dataset or weights that a cell needs. `variant`: the source of the data, or the model's revision.

    `file`: the YAML of a task of the user's own.
    """

    kind: Literal["data", "weights"]
    name: str
    variant: str | None
    file: str | None = None


def needs(cell: Cell) -> tuple[Need, Need]:
    """The dataset and the weights of a cell."""
    revision = cell.settings.get("model_revision")
    file = cell.settings.get("task_file")
    data = Need("data", cell.task, cell.settings["data"], file)
    return data, Need("weights", cell.model, revision)


def absent(planned: Iterable[Planned]) -> dict[Need, str]:
    """What the runs still to do need and this machine lacks, each with the reason."""
    wanted = dict.fromkeys(n for p in planned if p.to_do for n in needs(p.cell))
    reasons = {n: _no_data(n) if n.kind == "data" else _no_weights(n) for n in wanted}
    return {need: why for need, why in reasons.items() if why}


def rows(
    planned: Sequence[Planned],
    missing: Mapping[Need, str],
    peaks: Mapping[Place, Forecast] | None = None,
    budget: int | None = None,
) -> list[dict[str, Any]]:
    """A table row per run, from the results of `absent` and, if peaks are wanted, `forecast.of`.

    The column `fits` says whether the peak is within `budget` bytes.
    """
    return [
        {
            "run_id": p.run_id,
            "kind": "lr trial" if p.trial else "run",
            "state": p.fault.status if p.fault else p.state,
            "steps": steps
            if (steps := _steps(p)) or first_spec(p).lr is None
            else None,  # rows unknown
            "lr": p.spec.lr if p.spec else None,
            "hash": p.spec.hash if p.spec else None,
            "lacks": _lacks(p, missing),
            **(forecast.columns(peaks[place(p)], budget) if peaks is not None else {}),
        }
        for p in planned
    ]


def summary(
    planned: Sequence[Planned],
    missing: Mapping[Need, str],
    peaks: Mapping[Place, Forecast] | None = None,
    budget: int | None = None,
) -> Iterator[str]:
    """Lines below the table: runs and steps in all and left, what is missing, what will not fit."""
    left = [p for p in planned if p.to_do]
    cells = len(set(map(place, planned)))
    trials = sum(p.trial for p in planned)
    yield (
        f"{cells} cells, {len(planned)} runs ({trials} of them lr trials), "
        f"{sum(map(_steps, planned)):,} steps; "
        f"still to do: {len(left)} runs, {sum(map(_steps, left)):,} steps"
    )
    faults: dict[Fault, dict[str, None]] = {}
    for p in planned:
        if p.fault:
            faults.setdefault(p.fault, {})[p.cell.label] = None
    for fault, labels in faults.items():
        yield f"{fault.status}: {fault.reason} (for {', '.join(labels)})"
    reasons: dict[tuple[str, str], list[str]] = {}
    for need, why in missing.items():
        reasons.setdefault((need.kind, why), []).append(need.name)
    for (kind, why), names in sorted(reasons.items(), key=lambda reason: reason[0][0]):
        yield f"missing {kind}: {why} (for {', '.join(names)})"
    yield from _unpinned(dict.fromkeys(n for p in left for n in needs(p.cell)))
    yield from forecast.lines(peaks or {}, budget)


def _unpinned(needed: Iterable[Need]) -> Iterator[str]:
    """Datasets and models that are read from the Hub at a branch, whose commit may change between runs."""
    readers: dict[str, list[str]] = {}
    for need in needed:
        if need.kind == "data" and need.variant == "hub":
            for origin in own.of(need.name, need.file).dataset.origins.values():
                if not origin.pinned:
                    branch = f"dataset {origin.id}: {origin.revision}"
                    readers.setdefault(branch, []).append(need.name)
        elif need.kind == "weights" and _moves(need):
            readers[f"model {need.name}: {need.variant or 'main'}"] = []
    for branch, names in sorted(readers.items()):
        who = f" (for {', '.join(dict.fromkeys(names))})" if names else ""
        yield f"not pinned: {branch} is a branch or tag, which may move{who}; records name its commit"


def _moves(need: Need) -> bool:
    """Whether the model comes from the Hub without a pinned commit."""
    entry = registry.MODELS.get(need.name)
    on_hub = entry.startswith("hub:") if entry else not Path(need.name).is_dir()
    return on_hub and not COMMIT.fullmatch(need.variant or "")


def _steps(planned: Planned) -> int:
    return planning.predicted_steps(first_spec(planned))


def _lacks(planned: Planned, missing: Mapping[Need, str]) -> str | None:
    if not planned.to_do:
        return None
    return ", ".join(need.kind for need in needs(planned.cell) if need in missing) or None


def _no_data(need: Need) -> str | None:
    """Why the task's data cannot be read here; None if it can be. A twin is built when it is needed."""
    task = own.of(need.name, need.file)
    if need.variant != "hub":
        try:
            sources.check(task, str(need.variant))
        except UserError as error:
            return str(error)
        return None
    for origin in task.dataset.origins.values():
        if not any(hub_cache.prepared(origin)):
            return f"{origin.id} ({origin.config}) is not in {hub_cache.root()}"
    return None


def _no_weights(need: Need) -> str | None:
    """Why the model cannot be loaded here; None if it can be. A twin is built when it is needed."""
    if registry.MODELS.get(need.name, "").startswith("twin:"):
        return None
    try:
        source = registry.source(need.name, need.variant)
    except UserError as error:
        return str(error)
    if source.kind != "hub" or _cached_weights(source):
        return None
    from huggingface_hub import constants

    return f"{source.location} is not in {constants.HF_HUB_CACHE} as safetensors"


def _cached_weights(source: registry.Source) -> bool:
    """Whether the Hub's cache holds the configuration and every file of the weights."""

    def cached(name: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(source.location, name, revision=source.revision)
        return Path(found) if isinstance(found, str) else None

    if cached("config.json") is None:
        return False
    if cached("model.safetensors"):
        return True
    index = cached("model.safetensors.index.json")
    if index is None:
        return False
    shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return all(map(cached, set(shards)))
