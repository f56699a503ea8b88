"""Rows of the twins, and batches made of them, for the tests of every adapter."""

import re
from pathlib import Path

from twin_tables import tables

from tasks import base

SHARED = Path(__file__).resolve().parents[3] / "shared"


def twin_rows(task, role="eval", n=None):
    """The first `n` rows of a role of the task's twin, as columns."""
    origin = task.dataset.origins[role]
    twin = tables(origin.id, origin.config)
    split = re.sub(r"\[.*", "", task.dataset.splits[role])
    rows = twin.splits[split][:n]
    return {name: [row[name] for row in rows] for name in twin.features}


def examples(adapter, tokenizer, role="eval", n=6, max_length=128):
    """The first `n` examples of the twin, rows arranged as the adapter wants them."""
    task = adapter.config
    arranged = adapter.arrange(twin_rows(task, role), role == "train", tokenizer, max_length)
    rows = arranged or twin_rows(task, role, n)
    return {name: values[:n] for name, values in rows.items()}


def features(adapter, rows, tokenizer, max_length=128):
    """One dict of features per example, without the mark of truncation."""
    columns = adapter.encode(rows, tokenizer, max_length)
    columns.pop("truncated")
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def task(name):
    return base.adapter(base.load(name))
