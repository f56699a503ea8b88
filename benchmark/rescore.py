"""Scores made again from stored predictions and references: no model, no data, nothing trained.

For a metric that was put right since. A metric's version changes with its meaning, so an old and a new score
of one version that differ show a defect.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tasks.base
from benchmark import record, runner
from benchmark.errors import UserError
from benchmark.matrix import Matrix
from benchmark.record import RunRecord, Scores
from benchmark.spec import RunSpec


@dataclass(frozen=True)
class Rescored:
    """One run's scores as recorded and as computed now; `path` is its record's."""

    record: RunRecord
    path: Path
    old: Scores
    new: Scores

    @property
    def changed(self) -> bool:
        """Whether writing would change the record."""
        differing = any(row["differs"] for row in self.rows())
        return differing or self.old.metric_version != self.new.metric_version

    def rows(self) -> list[dict[str, Any]]:
        """One row per score: what it was, what it is, and the main metric's version."""
        versions = dict.fromkeys((self.old.metric_version, self.new.metric_version))
        return [
            {
                "run_id": self.record.run_id,
                "score": name,
                "old": (old := self.old.all.get(name)),
                "new": (new := self.new.all.get(name)),
                "differs": not _same(old, new),
                "version": " -> ".join(versions),
            }
            for name in dict.fromkeys([*self.new.all, *self.old.all])
        ]


def rescore(matrix: Matrix, results: Path) -> list[Rescored]:
    """Every successful run of the matrix on record, learning-rate trials included, scored again.

    Raises UserError naming the file for predictions that are missing or not those of the record.
    """
    planned = runner.plan(matrix, results)
    return [_again(p.spec, results) for p in planned if p.state == "done" and p.spec is not None]


def write(rescored: list[Rescored]) -> int:
    """Put the new scores into the records that they change, each atomically; returns how many."""
    changed = [found for found in rescored if found.changed]
    for found in changed:
        record.write(dataclasses.replace(found.record, scores=found.new), found.path)
    return len(changed)


def _again(spec: RunSpec, results: Path) -> Rescored:
    folder = runner.folder_of(spec, results)
    path = folder / f"{spec.run_id}.json"
    found = record.load(path)
    old = found.scores
    if old is None or found.predictions is None:
        raise UserError(f"{path}: scores and predictions: missing in a successful record")
    stored = folder / found.predictions
    predictions, references = record.read_predictions(stored)
    if len(predictions) != old.n:
        raise UserError(f"{stored}: has {len(predictions)} predictions, not the {old.n} of {path}")
    task = tasks.base.load(spec.task)
    try:
        scores = tasks.base.adapter(task).score(predictions, references)
    except (ValueError, TypeError, LookupError) as error:  # not what the metric reads
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{stored}: cannot be scored: {reason}") from error
    new = dataclasses.replace(
        old,
        main=scores[task.main_key],
        metric=task.main_key,
        metric_version=task.main_version,
        higher_is_better=task.higher_is_better,
        all=scores,
    )
    return Rescored(found, path, old, new)


def _same(old: float | None, new: float | None) -> bool:
    """Equal but for the last digits, which another version of a library may round differently."""
    if old is None or new is None:
        return old is new
    return math.isclose(old, new, rel_tol=1e-12, abs_tol=1e-12)
