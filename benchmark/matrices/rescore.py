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
from benchmark.errors import UserError
from benchmark.matrices import planning
from benchmark.matrices.matrix import Matrix
from benchmark.records import predictions, record
from benchmark.records.predictions import Predictions
from benchmark.records.record import RunRecord, Scores
from benchmark.records.spec import RunSpec
from tasks.metrics import standard_error


@dataclass(frozen=True)
class Rescored:
    """One run's scores as recorded and as computed now; `path` is its record's, `stored` its predictions'.
    `kept` are the predictions with the examples' scores of now."""

    record: RunRecord
    path: Path
    old: Scores
    new: Scores
    stored: Path
    kept: Predictions

    @property
    def changed(self) -> bool:
        """Whether a score on record, or what the record says of it, is another now."""
        described = ("metric", "metric_version", "higher_is_better")
        return any(row["differs"] for row in self.rows()) or any(
            getattr(self.old, name) != getattr(self.new, name) for name in described
        )

    @property
    def older(self) -> bool:
        """Whether the record was written before there were scores of examples."""
        return self.old.stderr is None and self.new.stderr is not None

    def rows(self) -> list[dict[str, Any]]:
        """One row for the main score, one per score and one for the main score's standard error: what it
        was, what it is, and the main metric's version. A standard error that an older record lacks is no
        difference."""
        before, now = (
            {"main": side.main, **side.all, "stderr": side.stderr} for side in (self.old, self.new)
        )
        versions = dict.fromkeys((self.old.metric_version, self.new.metric_version))
        return [
            {
                "run_id": self.record.run_id,
                "score": name,
                "old": (old := before.get(name)),
                "new": (new := now.get(name)),
                "differs": not _same(old, new) and not (name == "stderr" and self.older),
                "version": " -> ".join(versions),
            }
            for name in dict.fromkeys([*now, *before])
        ]


def rescore(matrix: Matrix, results: Path) -> list[Rescored]:
    """Every successful run of the matrix on record, learning-rate trials included, scored again; a trial that
    went by the loss has no predictions to score.

    Raises UserError naming the file for predictions that are missing or not those of the record.
    """
    planned = planning.plan(matrix, results)
    return [
        _again(p.spec, results)
        for p in planned
        if p.state == "done" and p.spec is not None and p.spec.score_on != "dev_loss"
    ]


def write(rescored: list[Rescored]) -> int:
    """Put the new scores into the records that they change or complete, each file atomically; returns how
    many records."""
    changed = [found for found in rescored if found.changed or found.older]
    for found in changed:
        predictions.write(found.stored, found.kept)
        record.write(dataclasses.replace(found.record, scores=found.new), found.path)
    return len(changed)


def _again(spec: RunSpec, results: Path) -> Rescored:
    folder = planning.folder_of(spec, results)
    path = folder / f"{spec.run_id}.json"
    found = record.load(path)
    old = found.scores
    if old is None or found.predictions is None:
        raise UserError(f"{path}: scores and predictions: missing in a successful record")
    stored = folder / found.predictions
    kept = predictions.read(stored)
    if len(kept.predictions) != old.n:
        count = len(kept.predictions)
        raise UserError(f"{stored}: has {count} predictions, not the {old.n} of {path}")
    task = tasks.base.load(spec.task)
    adapter = tasks.base.adapter(task)
    try:
        scores = adapter.score(kept.predictions, kept.references)
        of_examples = adapter.per_example(kept.predictions, kept.references)
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
        stderr=standard_error(of_examples),
    )
    return Rescored(found, path, old, new, stored, dataclasses.replace(kept, scores=of_examples))


def _same(old: float | None, new: float | None) -> bool:
    """Equal but for the last digits, which another version of a library may round differently."""
    if old is None or new is None:
        return old is new
    return math.isclose(old, new, rel_tol=1e-12, abs_tol=1e-12)
