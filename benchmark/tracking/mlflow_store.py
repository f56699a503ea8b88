"""Runs in an MLflow store: a parent run for each cell, with a child run for each seed. Tags identify them.

Every call uses an MlflowClient of the store's URI, so an active run of the user is never touched.
"""

import functools
import os
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.records.record import RunRecord, read_curve
from benchmark.tracking import values

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LONGEST_PARAMETER = 500
"""Longer parameters, in characters, become an artifact."""
_METRICS_PER_CALL = 1000  # MLflow's limit for log_batch


@dataclass
class Child:
    """An MLflow run that is being written. `base` is its start in ms since 1970; a step's time is `base` plus
    the step's seconds. `last_step` is the last step whose metrics were logged."""

    id: str
    run_id: str
    spec_hash: str
    parent: str
    base: int
    last_step: int = -1


class Store:
    """One experiment of one MLflow store. Connects (and imports mlflow) on first use."""

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri = uri
        self.experiment = experiment
        self.parents: dict[str, str] = {}
        # set before mlflow is imported: by default it retries a dead server for minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

    @functools.cached_property
    def client(self) -> "MlflowClient":
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)

    @functools.cached_property
    def _experiment_id(self) -> str:
        experiment = self.client.get_experiment_by_name(self.experiment)
        if experiment is not None:
            return str(experiment.experiment_id)
        folder = values.artifact_folder(self.uri)
        location = folder.as_uri() if folder else None
        return str(self.client.create_experiment(self.experiment, artifact_location=location))

    def find(self, spec: Mapping[str, Any], run_id: str, spec_hash: str) -> list["Run"]:
        """The child run with this run id and spec hash, in a list that is empty where there is none."""
        return self._search(
            spec, f"tags.`hift.run_id` = '{run_id}' and tags.`hift.spec_hash` = '{spec_hash}'"
        )

    def supersede(self, spec: Mapping[str, Any], run_id: str, spec_hash: str) -> None:
        """Tag children with this run id and another spec hash as superseded; they are left out of means."""
        condition = f"tags.`hift.run_id` = '{run_id}' and tags.`hift.spec_hash` != '{spec_hash}'"
        for run in self._search(spec, condition):
            if "hift.superseded" not in run.data.tags:
                self.client.set_tag(run.info.run_id, "hift.superseded", "true")

    def parent(self, spec: Mapping[str, Any], start: int) -> str:
        """The MLflow id of the cell's parent run, created where it is missing. `start`: ms since 1970."""
        cell = values.cell_key(spec)
        if cell not in self.parents:
            role = "search" if values.is_trial(spec) else "cell"
            condition = f"tags.`hift.cell` = '{cell}' and tags.`hift.role` = '{role}'"
            matching = self._search(spec, condition)
            if matching:
                self.parents[cell] = matching[0].info.run_id
            else:
                tags = {"hift.matrix": spec["matrix"], "hift.cell": cell, "hift.role": role}
                created = self.client.create_run(self._experiment_id, start, tags, cell).info
                names = {
                    name: spec[name] for name in ("task", "data", "model", "strategy", "label")
                }
                self._log_parameters(created.run_id, names)
                self.parents[cell] = created.run_id
        return self.parents[cell]

    def create(self, spec: Mapping[str, Any], run_id: str, spec_hash: str, start: int) -> Child:
        """Create a child run. An earlier child of the same spec is deleted, because its history belongs to an
        interrupted run or to a record that was replaced since."""
        self.supersede(spec, run_id, spec_hash)
        for run in self.find(spec, run_id, spec_hash):
            self.client.delete_run(run.info.run_id)
        parent = self.parent(spec, start)
        tags = {
            "mlflow.parentRunId": parent,
            "hift.matrix": spec["matrix"],
            "hift.cell": values.cell_key(spec),
            "hift.role": "trial" if values.is_trial(spec) else "run",
            "hift.run_id": run_id,
            "hift.spec_hash": spec_hash,
        }
        created = self.client.create_run(self._experiment_id, start, tags, run_id).info
        self._log_parameters(created.run_id, spec)
        return Child(created.run_id, run_id, spec_hash, parent, start)

    def create_from(self, record: RunRecord) -> Child:
        start = values.milliseconds(record.times.started)
        return self.create(record.spec, record.run_id, record.spec_hash, start)

    def log_rows(self, child: Child, rows: Iterable[Mapping[str, Any]]) -> None:
        """Log the step metrics of curve rows, each with the time at which the step ended."""
        from mlflow.entities import Metric

        metrics = []
        for row in rows:
            step, moment = int(row["step"]), child.base + round(float(row["seconds"]) * 1000)
            named = values.step_metrics(row)
            metrics += [Metric(name, value, moment, step) for name, value in named.items()]
            child.last_step = max(child.last_step, step)
        self._log_metrics(child.id, metrics)

    def complete(self, child: Child, record: RunRecord, folder: Path) -> None:
        """Log the steps not yet logged, the final metrics, the record and the status of a finished run."""
        from mlflow.entities import Metric, RunTag

        rest = (row for row in _curve_rows(record, folder) if row["step"] > child.last_step)
        self.log_rows(child, rest)
        end = values.milliseconds(record.times.finished)
        final = values.final_metrics(record)
        self._log_metrics(child.id, [Metric(name, value, end, 0) for name, value in final.items()])
        self.client.log_text(child.id, record.to_json(), f"record/{record.run_id}.json")
        tags = [RunTag(name, value) for name, value in values.final_tags(record).items()]
        self.client.log_batch(child.id, tags=tags)
        self.client.set_terminated(child.id, values.STATUSES.get(record.status, "FAILED"), end)

    def refresh_parent(self, parent: str) -> None:
        """Set the parent's metrics to the means of its finished children; scores also get the standard
        deviation."""
        from mlflow.entities import Metric

        condition = f"tags.`mlflow.parentRunId` = '{parent}'"
        children = self.client.search_runs([self._experiment_id], condition)
        current = [run for run in children if "hift.superseded" not in run.data.tags]
        finished = [run for run in current if run.info.status == "FINISHED"]
        metrics: dict[str, float] = {"seeds": len(finished)}
        names = {name for run in finished for name in values.run_metrics(run.data.metrics)}
        for name in sorted(names):
            each = [run.data.metrics[name] for run in finished if name in run.data.metrics]
            metrics[f"{name}_mean"] = statistics.fmean(each)
            if name.startswith("score/") and len(each) > 1:
                metrics[f"{name}_std"] = statistics.stdev(each)
        end = max((run.info.end_time or 0 for run in current), default=0)
        old = self.client.get_run(parent)
        logged = old.data.metrics
        new = {name: value for name, value in metrics.items() if logged.get(name) != value}
        self._log_metrics(parent, [Metric(name, value, end, 0) for name, value in new.items()])
        states = {run.info.status for run in current}
        status = next((s for s in ("KILLED", "FAILED", "RUNNING") if s in states), "FINISHED")
        if (old.info.status, old.info.end_time) != (status, end):
            self.client.set_terminated(parent, status, end)

    def _search(self, spec: Mapping[str, Any], condition: str) -> list["Run"]:
        runs = self.client.search_runs([self._experiment_id], condition)
        return [run for run in runs if run.data.tags.get("hift.matrix") == spec["matrix"]]

    def _log_parameters(self, run: str, spec: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        short = []
        for name, text in values.parameters(spec).items():
            if len(text) > LONGEST_PARAMETER:
                file = f"parameters/{name.replace('/', '_')}.txt"
                self.client.log_text(run, text, file)
                text = f"artifact {file}"
            short.append(Param(name, text))
        self.client.log_batch(run, params=short)

    def _log_metrics(self, run: str, metrics: list[Any]) -> None:
        for start in range(0, len(metrics), _METRICS_PER_CALL):
            self.client.log_batch(run, metrics=metrics[start : start + _METRICS_PER_CALL])


def _curve_rows(record: RunRecord, folder: Path) -> Iterator[dict[str, float]]:
    """The rows of the record's curve file. An unreadable file gives no rows and one line on stderr."""
    if record.curve is None:
        return
    try:
        columns = read_curve(folder / record.curve)
    except (OSError, ValueError) as error:
        print(f"hift-bench: {record.curve}: curve not tracked: {error}", file=sys.stderr)
        return
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(columns, row, strict=True))
