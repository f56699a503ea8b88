"""Runs in an MLflow store: a parent run for each cell, with a child run for each seed. Tags identify them.

Every call uses an MlflowClient of the store's URI, so an active run of the user is never touched.
"""

import contextlib
import functools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.records.record import Inputs, RunRecord, read_curve
from benchmark.tracking import owners, values, view
from benchmark.tracking.client import Calls, connect, sqlite_file

if TYPE_CHECKING:
    from mlflow.entities import Run

LONGEST_PARAMETER = 500
"""Longer parameters, in characters, become an artifact."""
_METRICS_PER_CALL = 1000  # MLflow's limit for log_batch
_RUNS_PER_CALL = 1000


@dataclass
class Child:
    """An MLflow run that is being written. `base` is its start in ms since 1970; a step's time is `base` plus
    the step's seconds. `steps` are those whose metrics were logged."""

    id: str
    run_id: str
    spec_hash: str
    parent: str
    base: int
    steps: set[int] = field(default_factory=set)


class Store:
    """One experiment of one MLflow store. Connects (and imports mlflow) on first use.

    description: of the experiment, in Markdown. parents: the MLflow ids of the parent runs, by cell.
    """

    def __init__(self, uri: str, experiment: str, description: str = "") -> None:
        self.uri = uri
        self.experiment = experiment
        self.description = description
        self.parents: dict[str, str] = {}
        self._calls: Calls | None = None
        self._began = math.inf  # when it began to connect
        # set before mlflow is imported: by default it retries a dead server for minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault(
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"
        )  # that is the table's

    def anew(self) -> "Store":
        """The same experiment, with nothing known of it."""
        return Store(self.uri, self.experiment, self.description)

    @property
    def client(self) -> Any:
        """An MlflowClient, in `Calls`."""
        if self._calls is None:
            self._began = time.monotonic()
            self._calls = connect(self.uri)
        return self._calls

    @property
    def age(self) -> float:
        """Seconds that the present call, or connecting, has waited for its answer; below 0 if none does."""
        return self._calls.age if self._calls else time.monotonic() - self._began

    @functools.cached_property
    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(self.experiment)
        if found is None:
            database = sqlite_file(self.uri)
            location = (database.parent / "mlartifacts").as_uri() if database else None
            with contextlib.suppress(
                MlflowException
            ):  # another process was quicker, or we see below
                self.client.create_experiment(self.experiment, artifact_location=location)
            found = self.client.get_experiment_by_name(self.experiment)
            if found is None:
                raise MlflowException(f"the experiment {self.experiment} cannot be created")
        for name, text in view.tags(found.tags, self.description).items():
            self.client.set_experiment_tag(found.experiment_id, name, text)
        return str(found.experiment_id)

    def runs(self, condition: str = "") -> list["Run"]:
        """The runs of the experiment that this suite has logged, and that meet the condition."""
        found, token = [], None
        while True:
            page = self.client.search_runs(
                [self._experiment_id], condition, max_results=_RUNS_PER_CALL, page_token=token
            )
            found += [run for run in page if run.data.tags.get("hift.matrix") == self.experiment]
            if not (token := page.token):
                return found

    def supersede(self, run: "Run") -> None:
        """Tag a child as superseded by one with other settings; it is left out of means."""
        if "hift.superseded" not in run.data.tags:
            self.client.set_tag(run.info.run_id, "hift.superseded", "true")

    def parent(self, spec: Mapping[str, Any], start: int) -> str:
        """The MLflow id of the cell's parent run, created where it is missing. `start`: ms since 1970."""
        cell = values.cell_key(spec)
        if cell not in self.parents:
            role = "search" if values.is_trial(spec) else "cell"
            condition = f"tags.`hift.cell` = '{cell}' and tags.`hift.role` = '{role}'"
            matching = self.runs(condition)
            if matching:
                self.parents[cell] = matching[0].info.run_id
            else:
                tags = {"hift.matrix": self.experiment, "hift.cell": cell, "hift.role": role}
                name = values.run_name(spec, of_cell=True)
                created = self.client.create_run(self._experiment_id, start, tags, name).info
                self.describe(created.run_id, spec)
                self.parents[cell] = created.run_id
        return self.parents[cell]

    def describe(self, parent: str, spec: Mapping[str, Any]) -> None:
        """Log what the cell of `spec` is to its parent run."""
        names = ("task", "data", "model", "strategy", "label")
        self._log_parameters(parent, {name: spec[name] for name in names})

    def create(self, spec: Mapping[str, Any], run_id: str, spec_hash: str, start: int) -> Child:
        """Create a child run. An earlier child of the same spec is deleted, because its history belongs to an
        interrupted run or to a record that was replaced since."""
        for run in self.runs(f"tags.`hift.run_id` = '{run_id}'"):
            if run.data.tags["hift.spec_hash"] == spec_hash:
                self.client.delete_run(run.info.run_id)
            else:
                self.supersede(run)
        parent = self.parent(spec, start)
        tags = {
            "mlflow.parentRunId": parent,
            "hift.matrix": self.experiment,
            "hift.cell": values.cell_key(spec),
            "hift.role": "trial" if values.is_trial(spec) else "run",
            "hift.run_id": run_id,
            "hift.spec_hash": spec_hash,
            "hift.owner": owners.this_process(),
        }
        name = values.run_name(spec)
        created = self.client.create_run(self._experiment_id, start, tags, name).info
        self._log_parameters(created.run_id, spec)
        return Child(created.run_id, run_id, spec_hash, parent, start)

    def create_from(self, record: RunRecord) -> Child:
        start = values.milliseconds(record.times.started)
        return self.create(record.spec, record.run_id, record.spec_hash, start)

    def log_rows(self, child: Child, rows: Iterable[Mapping[str, Any]]) -> None:
        """Log the step metrics of curve rows, each with the time at which the step ended."""
        from mlflow.entities import Metric

        metrics, steps = [], set()
        for row in rows:
            step, moment = int(row["step"]), child.base + round(float(row["seconds"]) * 1000)
            named = values.step_metrics(row)
            metrics += [Metric(name, value, moment, step) for name, value in named.items()]
            steps.add(step)
        self._log_metrics(child.id, metrics)
        child.steps |= steps

    def complete(self, child: Child, record: RunRecord, folder: Path) -> None:
        """Log the steps not yet logged, the final metrics, the record and the status of a finished run."""
        from mlflow.entities import RunTag

        rows = list(_curve_rows(record, folder))
        self.log_rows(child, (row for row in rows if row["step"] not in child.steps))
        self._log_results(child.id, record, rows)
        if record.inputs:
            self.client.log_inputs(child.id, [_dataset(record.inputs)])
        self.client.log_text(child.id, record.to_json(), f"record/{record.run_id}.json")
        tags = [RunTag(name, value) for name, value in values.final_tags(record).items()]
        self.client.log_batch(child.id, tags=tags)
        end = values.milliseconds(record.times.finished)
        self.client.set_terminated(child.id, values.STATUSES.get(record.status, "FAILED"), end)

    def freshen(self, run: "Run", record: RunRecord, folder: Path) -> bool:
        """Log what a run of an earlier version lacks, beside what it has; whether that was anything."""
        from mlflow.entities import RunTag

        if run.data.tags.get("hift.form") == values.FORM:
            return False
        rows = list(_curve_rows(record, folder))
        mine = Child(run.info.run_id, record.run_id, record.spec_hash, "", run.info.start_time)
        self.log_rows(mine, rows)
        self._log_results(mine.id, record, rows)
        tags = [RunTag(name, value) for name, value in values.final_tags(record).items()]
        self.client.log_batch(mine.id, tags=tags)
        return True

    def _log_results(
        self, run: str, record: RunRecord, rows: Sequence[Mapping[str, float]]
    ) -> None:
        """Log the numbers of a run as they were after some of its steps, and in the end."""
        from mlflow.entities import Metric

        start = values.milliseconds(record.times.started)
        metrics = [
            Metric(name, value, start + round(seconds * 1000), step)
            for step, seconds, named in values.so_far(record, rows)
            for name, value in named.items()
        ]
        end, last = values.milliseconds(record.times.finished), values.last_step(record)
        final = values.final_metrics(record).items()
        self._log_metrics(run, [*metrics, *(Metric(name, v, end, last) for name, v in final)])

    def log_report(self, page: Path) -> None:
        """Keep the page of the report as an artifact of one run of the experiment, which has nothing else."""
        mine = "tags.`hift.role` = 'report'"
        found = self.client.search_runs([self._experiment_id], mine, max_results=1)
        if found:
            run_id = found[0].info.run_id
        else:
            tags = {"hift.role": "report", view.NOTE_TAG: f"The report: report/{page.name}"}
            run_id = self.client.create_run(self._experiment_id, None, tags, "report").info.run_id
        self.client.log_artifact(run_id, str(page), "report")
        self.client.set_terminated(run_id)

    def refresh(self, parent: str) -> None:
        """`refresh_parent` with the state of the store."""
        children = self.runs(f"tags.`mlflow.parentRunId` = '{parent}'")
        self.refresh_parent(self.client.get_run(parent), children)

    def refresh_parent(self, parent: "Run", children: Iterable["Run"]) -> None:
        """Set the parent's metrics to the means of its finished children, by their names too; scores also get
        the standard deviation. Their step is the number of seeds that they are of."""
        from mlflow.entities import Metric

        current = [run for run in children if "hift.superseded" not in run.data.tags]
        finished = [run for run in current if run.info.status == "FINISHED"]
        metrics: dict[str, float] = {"seeds": len(finished)}
        names = {name for run in finished for name in values.run_metrics(run.data.metrics)}
        for name in sorted(names):
            each = [run.data.metrics[name] for run in finished if name in run.data.metrics]
            metrics[name] = metrics[f"{name}_mean"] = statistics.fmean(each)
            if name.startswith("score/") and len(each) > 1:
                metrics[f"{name}_std"] = statistics.stdev(each)
        end = max((run.info.end_time or 0 for run in current), default=0) or parent.info.start_time
        logged = parent.data.metrics
        new = {name: value for name, value in metrics.items() if logged.get(name) != value}
        now, step = round(time.time() * 1000), 0
        if new:  # MLflow shows that of the largest step, then the latest, then the largest
            known = self.client.get_metric_history(parent.info.run_id, "seeds")
            step = max([len(finished), *(metric.step for metric in known)])
        self._log_metrics(parent.info.run_id, [Metric(n, v, now, step) for n, v in new.items()])
        states = {run.info.status for run in current}
        status = next((s for s in ("KILLED", "FAILED", "RUNNING") if s in states), "FINISHED")
        if (parent.info.status, parent.info.end_time) != (status, end):
            self.client.set_terminated(parent.info.run_id, status, end)

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


def _dataset(inputs: Inputs) -> Any:
    """The data of a run as MLflow's dataset: name, fingerprint, source and numbers of rows."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = {"dataset": inputs.dataset, "revision": inputs.dataset_revision}
    rows = {"train": inputs.examples_train, "eval": inputs.examples_eval}
    dataset = Dataset(
        name=inputs.dataset,
        digest=inputs.dataset_fingerprint[:36],
        source_type=inputs.dataset_source,
        source=json.dumps(source),
        profile=json.dumps(rows),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


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
