"""Scores, each an `evaluate.Metric` in a file of its own here, loaded by path: no network, versioned.

A file's VERSION is raised whenever the same inputs may score differently; id and version stand beside
every score. Files whose name begins with "_" hold what several metrics share. Importing this package
loads neither evaluate nor scikit-learn.
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
    """A score is infinite or no number, from predictions that are not finite: the model has diverged."""


def available() -> list[str]:
    """Every metric's name."""
    return sorted(path.stem for path in _FOLDER.glob("[a-z]*.py"))


def compute(
    name: str, predictions: Sequence[Any], references: Sequence[Any], **options: Any
) -> dict[str, float]:
    """Score predictions against references, one of each per example, under the metric's own keys.

    What an item is stands in the metric's file; `options` are those of its `_compute`. Raises
    ValueError for an unknown name, no examples at all, an example without a prediction or a reference
    and sides of unequal length; NotFinite for such a score.
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
    """Scores of the single examples, by the keys of `compute`; each key's average is the score of all.

    A score that is a mean over examples has their own scores here. Another has the jackknife's values
    (`_jackknife.py`), whose spread is that of the score too. Keys that have neither, or for which one is not
    finite, are left out. For what `compute` accepts.
    """
    none: dict[str, list[float]] = {}
    scores = getattr(_load(name), "per_example", lambda *sides: none)(predictions, references)
    return {key: found for key, found in scores.items() if all(map(math.isfinite, found))}


def standard_error(scores: Sequence[float] | None) -> float | None:
    """Of the mean of the examples' scores: their standard deviation (ddof=1) over sqrt(n).

    None without scores, and of one example.
    """
    if scores is None or len(scores) < 2:
        return None
    return statistics.stdev(scores) / math.sqrt(len(scores))


def reads_lists(name: str) -> bool:
    """Whether a reference of the metric is a list, such as several right texts."""
    import datasets

    return isinstance(_load(name).features["references"], datasets.List)


def unavailable(name: str) -> dict[str, str]:
    """The metric's scores that `compute` must leave out on this machine, each with the reason."""
    return getattr(_load(name), "unavailable", dict)()


@functools.cache
def version(name: str) -> str:
    """The metric's VERSION, read without running its file. Raises ValueError for an unknown name."""
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
    """The metric as `evaluate` loads it: copied under a lock into its modules cache, then imported."""
    path = _path(name)
    import evaluate

    # another process may have written into the modules cache since this one listed it
    importlib.invalidate_caches()
    # in memory: evaluate's file on disk has one name for all processes of the machine
    return evaluate.load(str(path), keep_in_memory=True)
