"""What the tracking tests write into a store, and all that a reader sees of it."""

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
                tracker.steps([{"event": "step", "total": steps, **row}])
            records.append(write_run(folder, record, steps))
            tracker.finish(records[-1], folder)
        assert not tracker.broken
    return records


def runs(uri, role, **tags):
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("made_up")
    found = client.search_runs([experiment.experiment_id], f"tags.`hift.role` = '{role}'")
    return [r for r in found if all(r.data.tags.get(k) == v for k, v in tags.items())]


def history(uri, run, name, *, times=True):
    found = MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, name)
    return [(m.step, m.value, *([m.timestamp] if times else [])) for m in found]


def everything(uri):
    """All that a reader of the store sees: runs, parameters, tags, whole metric histories."""
    found = {}
    for role in ("cell", "run", "search", "trial"):
        for run in runs(uri, role):
            histories = {name: history(uri, run, name) for name in run.data.metrics}
            state = (run.info.status, run.info.start_time, run.info.end_time)
            found[run.info.run_id] = (role, state, run.data.params, run.data.tags, histories)
    return found


def three(**fields):
    return [make_spec(seed=seed, **fields) for seed in range(3)]
