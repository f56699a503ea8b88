"""`hift-bench rescore`: scores computed again from stored predictions and references, without model or data.

It is for records older than a correction of their metric. A metric's version changes with its meaning, so two
different scores of one version show a defect.
"""

import dataclasses
import math
from collections.abc import Callable
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
from tasks import own
from tasks.metrics import standard_error


@dataclass(frozen=True)
class Rescored:
    """One run's scores, `old` as recorded and `new` as computed now.

    `path` is the file of the record, `predictions_path` that of the predictions. `predictions` hold the
    scores of the examples as computed now.
    """

    record: RunRecord
    path: Path
    old: Scores
    new: Scores
    predictions_path: Path
    predictions: Predictions

    @property
    def changed(self) -> bool:
        """Whether a score, or the record's description of it, differs now."""
        described = ("metric", "metric_version", "higher_is_better")
        return any(row["differs"] for row in self.rows()) or any(
            getattr(self.old, name) != getattr(self.new, name) for name in described
        )

    @property
    def older(self) -> bool:
        """Whether the record was written before records had standard errors."""
        return self.old.stderr is None and self.new.stderr is not None

    def rows(self) -> list[dict[str, Any]]:
        """One row for the main score, one per score and one for the main score's standard error: old, new and
        the main metric's version.

        A standard error that an older record lacks is no difference.
        """
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


def rescore(
    matrix: Matrix, results: Path, note: Callable[[str], None] = lambda line: None
) -> list[Rescored]:
    """Score every successful run of the matrix again, trials included; trials by loss have no predictions.

    `note` is called with a line about each damaged record.

    Raises UserError naming the file if predictions are missing or not those of the record.
    """
    planned = planning.plan(matrix, results)
    for line in planning.damaged(planned, results):
        note(line)
    return [
        _again(p.spec, results)
        for p in planned
        if p.state == "done" and p.spec is not None and p.spec.score_on != "dev_loss"
    ]


def write(rescored: list[Rescored]) -> int:
    """Write the new scores into the records that they change or complete, each file atomically.

    Returns the number of records written.
    """
    changed = [run for run in rescored if run.changed or run.older]
    for run in changed:
        predictions.write(run.predictions_path, run.predictions)
        record.write(dataclasses.replace(run.record, scores=run.new), run.path)
    return len(changed)


def _again(spec: RunSpec, results: Path) -> Rescored:
    folder = planning.folder_of(spec, results)
    path = folder / f"{spec.run_id}.json"
    recorded = record.load(path)
    old = recorded.scores
    if old is None or recorded.predictions is None:
        raise UserError(f"{path}: scores and predictions: missing in a successful record")
    predictions_path = folder / recorded.predictions
    stored = predictions.read(predictions_path)
    if len(stored.predictions) != old.n:
        count = len(stored.predictions)
        raise UserError(f"{predictions_path}: has {count} predictions, not the {old.n} of {path}")
    task = own.of(spec.task, spec.task_file)
    adapter = tasks.base.adapter(task)
    try:
        scores = adapter.score(stored.predictions, stored.references)
        of_examples = adapter.per_example(stored.predictions, stored.references)
    except (ValueError, TypeError, LookupError) as error:  # not what the metric reads
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{predictions_path}: cannot be scored: {reason}") from error
    new = dataclasses.replace(
        old,
        main=scores[task.main_key],
        metric=task.main_key,
        metric_version=task.main_version,
        higher_is_better=task.higher_is_better,
        all=scores,
        stderr=standard_error(of_examples),
    )
    rescored = dataclasses.replace(stored, scores=of_examples)
    return Rescored(recorded, path, old, new, predictions_path, rescored)


def _same(old: float | None, new: float | None) -> bool:
    """Equal up to the last digits, which another version of a library may round differently."""
    if old is None or new is None:
        return old is new
    return math.isclose(old, new, rel_tol=1e-12, abs_tol=1e-12)
