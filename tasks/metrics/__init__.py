"""The metrics: one file each, with an `evaluate.Metric` that is loaded by path, without network.

A file's VERSION is raised when the same inputs may get another score. Records store name and version beside
each score. Files whose name begins with "_" hold code that several metrics share. Importing this package
imports neither evaluate nor scikit-learn.
"""

import ast
import functools
import importlib
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.names import nearest

_FOLDER = Path(__file__).parent


class NotFinite(ValueError):
    """A score is NaN or infinite, because predictions are not finite: the model has diverged."""


def available() -> list[str]:
    """The names of all metrics, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("[a-z]*.py"))


def compute(
    name: str, predictions: Sequence[Any], references: Sequence[Any], **options: Any
) -> dict[str, float]:
    """The scores of a metric, by its own keys.

    `predictions` and `references` have one item per example; the metric's file says what an item is.
    `options`: keyword arguments of its `_compute`. Raises ValueError for an unknown name, for no examples,
    for unequal numbers of predictions and references, and for an item that is None. Raises NotFinite if a
    score is NaN or infinite.
    """
    metric = _load(name)
    if len(predictions) != len(references):
        raise ValueError(f"{name}: {len(predictions)} predictions for {len(references)} references")
    if len(predictions) == 0:
        raise ValueError(f"{name}: there is nothing to score, no predictions were given")
    for side, items in (("prediction", predictions), ("reference", references)):
        if any(item is None for item in items):
            position = next(i for i, item in enumerate(items) if item is None)
            raise ValueError(f"{name}: example {position} has no {side}")
    scores = metric.compute(predictions=predictions, references=references, **options)
    for key, value in scores.items():
        if not math.isfinite(value):
            raise NotFinite(f"{name}: {key} is {value}, so some prediction is not finite")
    return {key: float(value) for key, value in scores.items()}


def per_example(
    name: str, predictions: Sequence[Any], references: Sequence[Any]
) -> dict[str, list[float]]:
    """The score of each example, by the keys of `compute`. Their mean is the score of all examples.

    If a score is not a mean over examples, the values are those of the jackknife (`_jackknife.py`). A key
    without either, or with a value that is not finite, is left out. Accepts the same items as `compute`.
    """
    none: dict[str, list[float]] = {}
    scores = getattr(_load(name), "per_example", lambda *sides: none)(predictions, references)
    return {key: values for key, values in scores.items() if all(map(math.isfinite, values))}


def standard_error(scores: Sequence[float] | None) -> float | None:
    """The standard error of the mean of `scores`: their standard deviation (ddof=1) over sqrt(n).

    None without scores, or for a single one.
    """
    if scores is None or len(scores) < 2:
        return None
    return statistics.stdev(scores) / math.sqrt(len(scores))


def reads_lists(name: str) -> bool:
    """Whether the metric's references are lists, for example of several right texts."""
    import datasets

    return isinstance(_load(name).features["references"], datasets.List)


def unavailable(name: str) -> dict[str, str]:
    """The scores that `compute` cannot compute on this machine, each with the reason."""
    return getattr(_load(name), "unavailable", dict)()


@functools.cache
def version(name: str) -> str:
    """The metric's VERSION, read without importing its file. Raises ValueError for an unknown name."""
    for node in ast.parse(_path(name).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VERSION":
            return str(ast.literal_eval(node.value))
    raise ValueError(f"{_path(name)} sets no VERSION")


def _path(name: str) -> Path:
    names = available()
    if name not in names:
        raise ValueError(f'no metric "{name}"{nearest(name, names)}')
    return _FOLDER / f"{name}.py"


@functools.cache
def _load(name: str) -> Any:
    """The metric, loaded by `evaluate`, which copies its file into a modules cache and imports the copy."""
    path = _path(name)
    import evaluate

    # another process may have added files to the modules cache since Python listed it
    importlib.invalidate_caches()
    # in memory, because all processes of the machine would use one file on disk
    return evaluate.load(str(path), keep_in_memory=True)
