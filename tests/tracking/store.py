"""Helpers that write runs into a store and read everything back."""

from factories import curve_rows, make_record, make_spec, write_run
from mlflow import MlflowClient

from benchmark.tracking.tracker import Tracker

STEPS = 7


def track(uri, folder, specs, *, steps=STEPS):
    """Run `specs` as the runner does: start, live rows, record on disk, finish."""
    records = []
    with Tracker(uri, "made_up") as tracker:
        for spec in specs:
            tracker.start(spec)
            record = make_record(spec, score=0.8 + spec.seed / 100)
            for row in curve_rows(record, steps):
                tracker.steps(spec, [{"event": "step", "total": steps, **row}])
            records.append(write_run(folder, record, steps))
            tracker.finish(records[-1], folder)
    return records


def fill(uri, folder, records):
    """As `sync` does; whether the store has all records now."""
    with Tracker(uri, "made_up") as tracker:
        tracker.fill((record, folder) for record in records)
    return tracker.filled


def runs(uri, role, **tags):
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("made_up")
    of_role = client.search_runs([experiment.experiment_id], f"tags.`hift.role` = '{role}'")
    return [r for r in of_role if all(r.data.tags.get(k) == v for k, v in tags.items())]


def history(uri, run, name, *, times=True):
    points = MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, name)
    return [(m.step, m.value, *([m.timestamp] if times else [])) for m in points]


def everything(uri):
    """The whole store by run: role, status, times, parameters, tags and metric histories."""
    content = {}
    for role in ("cell", "run", "search", "trial"):
        for run in runs(uri, role):
            histories = {name: history(uri, run, name) for name in run.data.metrics}
            state = (run.info.status, run.info.start_time, run.info.end_time)
            content[run.info.run_id] = (role, state, run.data.params, run.data.tags, histories)
    return content


def content(uri):
    """Everything but MLflow's ids and times."""
    content = []
    for role in ("cell", "run"):
        for run in sorted(runs(uri, role), key=lambda run: run.info.run_name):
            curves = {n: history(uri, run, n, times=False) for n in run.data.metrics}
            own = {k: v for k, v in run.data.tags.items() if k.startswith("hift.")}
            content.append((role, run.info.status, run.data.params, own, curves))
    return content


def three(**fields):
    return [make_spec(seed=seed, **fields) for seed in range(3)]
