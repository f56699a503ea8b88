"""Rows of the twins, and batches made of them, for the tests of every adapter."""

import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from benchmark.models import registry
from benchmark.twin import data as twins
from tasks import base

SHARED = Path(__file__).resolve().parents[3] / "shared"


def twin_rows(task, role="eval", n=None):
    """The first `n` rows of a role of the task's twin, as columns."""
    origin = task.dataset.origins[role]
    tables = twins.tables(origin.id, origin.config)
    split = re.sub(r"\[.*", "", task.dataset.splits[role])
    rows = tables.splits[split][:n]
    return {name: [row[name] for row in rows] for name in tables.features}


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


def tokenizer_of(name):
    return registry.load_tokenizer(registry.source(name))


@pytest.fixture(scope="module")
def gpt2():
    """GPT-2's own tokenizer."""
    folder = SHARED / "models" / "gpt2-tokenizer"
    if not folder.is_dir():
        pytest.skip("GPT-2's tokenizer is not beside the checkout")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def task(name):
    return base.adapter(base.load(name))
