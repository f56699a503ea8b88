"""Whether runs that are compared had equal settings, data, versions and machines, and where they differ.

This file imports no torch and no mlflow, and reads no files.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmark.records.record import RunRecord
from benchmark.records.spec import CHANGES_NOTHING, TRAINING, RunSpec

_NAMES_THE_CELL = CHANGES_NOTHING | {"task", "model", "strategy", "seed"}
_TUNED_PER_CELL = {"lr", "options", "demonstrations"}
_SAME_MACHINE = {"torch", "transformers", "device", "cpu", "threads"}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A field that should be equal within `scope` and is not. `values` pairs each value with its run ids."""

    field: str
    scope: str
    values: tuple[tuple[str, tuple[str, ...]], ...]


def differences(records: Iterable[RunRecord]) -> list[Difference]:
    """Every field that should be equal between the runs of `records`, and is not."""
    seen: dict[tuple[str, str], dict[str, list[str]]] = {}
    for record in records:
        for name, scope, value in _should_agree(record):
            runs = seen.setdefault((name, scope), {}).setdefault(as_text(value), [])
            runs.append(record.run_id)
    return [
        Difference(field=name, scope=scope, values=tuple((v, tuple(r)) for v, r in values.items()))
        for (name, scope), values in seen.items()
        if len(values) > 1
    ]


def _should_agree(record: RunRecord) -> Iterator[tuple[str, str, Any]]:
    """Triples of field, scope and value. All records of a scope must have the same value of the field.

    A matrix may give each task its own settings, such as the number of training examples. So spec fields are
    compared only between runs of the same task; `settings` shows how they differ between tasks.
    """
    task, model, label, seed = (record.spec[k] for k in ("task", "model", "label", "seed"))
    for name, value in resolved(record).items():
        if name in _TUNED_PER_CELL:
            yield name, f"{task}, {model}, {label}", value
        elif name not in _NAMES_THE_CELL:
            yield name, task, value
    if record.inputs:
        yield "dataset source", "all runs", record.inputs.dataset_source
        yield "dataset fingerprint", f"{task}, seed {seed}", record.inputs.dataset_fingerprint
        weights = record.inputs.model_fingerprint
        yield "model fingerprint", f"{model}, {task}, seed {seed}", weights
    if record.scores:
        for name in ("metric", "metric_version", "split", "n"):
            yield f"score {name}", task, getattr(record.scores, name)
    if record.memory:
        yield "memory kind", "all runs", record.memory.kind
    for name, value in flatten(record.environment).items():
        if name.rsplit(".", 1)[-1] in _SAME_MACHINE:
            yield f"environment {name}", "all runs", value
    for name, value in flatten(record.code).items():
        yield f"code {name}", "all runs", value


def resolved(record: RunRecord) -> dict[str, Any]:
    """The record's spec, completed by the default of each field that the spec lacks.

    Without `lr` nothing trained, so the fields that only training uses are left out.
    """
    defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in RunSpec.model_fields.items()
        if not field.is_required()
    }
    unused = TRAINING if record.spec.get("lr") is None else ()
    complete = defaults | record.spec
    return {name: value for name, value in complete.items() if name not in unused}


def settings(records: Iterable[RunRecord]) -> dict[str, dict[str, tuple[str, ...]]]:
    """For each spec field that is not tuned for each cell: its values, each with the tasks that use it."""
    tasks_of: dict[str, dict[str, set[str]]] = {}
    for record in records:
        for name, value in resolved(record).items():
            if name not in _NAMES_THE_CELL | _TUNED_PER_CELL:
                tasks = tasks_of.setdefault(name, {}).setdefault(as_text(value), set())
                tasks.add(record.spec["task"])
    return {
        name: {value: tuple(sorted(tasks)) for value, tasks in values.items()}
        for name, values in tasks_of.items()
    }


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one flat dict; the key of a nested value joins the names with dots."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def as_text(value: Any) -> str:
    """A string as it is, any other value as JSON with sorted keys."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
