"""Makes an MLflow store agree with the records, whatever broke off what was logged live."""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.records.record import RunRecord
from benchmark.tracking import owners, values
from benchmark.tracking.mlflow_store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run


Progress = Callable[[int, int], None]
"""Told how many records are done, and how many there are."""


def fill(
    store: Store,
    records: Sequence[tuple[RunRecord, Path]],
    mine: Collection[str],
    progress: Progress = lambda done, of: None,
) -> int:
    """Log each record that the store lacks; close, delete and attach the runs that were left behind.

    Returns the number of records for which the store lacked something.
    records: each with the folder that its files are relative to. A run that holds the whole record stays as
    it is. Of several runs of one record, one stays. A run in the state RUNNING is closed, unless this process
    still writes it (its MLflow id is in `mine`) or another process may (see owners.py). Every parent run gets
    all runs of its cell, and their means.
    """
    listed = store.runs()
    attempts = defaultdict(list)
    for run in listed:
        if "hift.run_id" in run.data.tags:
            attempts[run.data.tags["hift.run_id"]].append(run)
    changed = 0
    for number, (record, folder) in enumerate(records, start=1):
        changed += _fill_one(store, attempts[record.run_id], record, folder, mine)
        progress(number, len(records))
    if changed:
        listed = store.runs()
    stale = [run for run in listed if "hift.run_id" in run.data.tags and not _may_stay(run, mine)]
    for run in stale:
        store.client.set_terminated(run.info.run_id, "KILLED", round(time.time() * 1000))
    _tidy_parents(store, store.runs() if stale else listed)
    return changed


def _fill_one(
    store: Store,
    attempts: Iterable["Run"],
    record: RunRecord,
    folder: Path,
    mine: Collection[str],
) -> bool:
    """Have `record` in the store once; whether that took a change. attempts: the runs with its run id."""
    whole = None
    changed = False
    for run in attempts:
        tags = run.data.tags
        if tags["hift.spec_hash"] != record.spec_hash:
            changed |= "hift.superseded" not in tags
            store.supersede(run)
        elif run.info.status == "RUNNING" and _may_stay(run, mine):
            return changed  # the record is an earlier one, and is being replaced
        elif whole is None and _is_whole(run, record):
            whole = run
        else:
            changed = True
            store.client.delete_run(run.info.run_id)
    if whole is None:
        store.complete(store.create_from(record), record, folder)
        return True
    changed |= store.freshen(whole, record, folder)
    if "hift.superseded" in whole.data.tags:  # its settings are those of the matrix again
        changed = True
        store.client.delete_tag(whole.info.run_id, "hift.superseded")
    return changed


def _is_whole(run: "Run", record: RunRecord) -> bool:
    """Whether the run has all of the record. The tag is set after the metrics, and before the status."""
    status = values.STATUSES.get(record.status, "FAILED")
    return run.data.tags.get("hift.record") == values.digest(record) and run.info.status == status


def _may_stay(run: "Run", mine: Collection[str]) -> bool:
    """Whether a run has an end, or may still get one from the process that writes it."""
    owner = run.data.tags.get("hift.owner")
    if run.info.status != "RUNNING" or run.info.run_id in mine:
        return True
    return owner != owners.this_process() and not owners.has_ended(owner)


def _tidy_parents(store: Store, runs: Iterable["Run"]) -> None:
    """One parent for each cell and one for its search, with all their runs and the means of these.

    Two processes that start on a cell at once may each make a parent: the earlier one stays.
    """
    parents: dict[str, list[Run]] = defaultdict(list)
    children: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id)):
        (children if "hift.run_id" in run.data.tags else parents)[
            run.data.tags["hift.cell"]
        ].append(run)
    for cell in parents.keys() | children.keys():
        if not parents[cell]:  # deleted by a user
            first = children[cell][0]
            made = store.parent(first.data.params, first.info.start_time)
            parents[cell].append(store.client.get_run(made))
        parent, *others = parents[cell]
        store.parents[cell] = parent.info.run_id
        if not parent.data.params and children[cell]:  # its process was killed
            store.describe(parent.info.run_id, children[cell][0].data.params)
        for run in others:
            store.client.delete_run(run.info.run_id)
        for run in children[cell]:
            if run.data.tags["mlflow.parentRunId"] != parent.info.run_id:
                store.client.set_tag(run.info.run_id, "mlflow.parentRunId", parent.info.run_id)
        store.refresh_parent(parent, children[cell])
