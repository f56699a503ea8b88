"""A task of the user's own: its YAML and its files of rows, written into a folder."""

import csv
import json
from pathlib import Path

import yaml

TASK = {
    "adapter": "classification",
    "data": {"train": "rows.jsonl"},
    "inputs": ["text"],
    "label": "mood",
    "labels": ["sad", "glad"],
    "metrics": ["accuracy"],
    "main": "accuracy",
}


def reviews(n=40, start=0):
    """Rows in words; every fourth text comes twice."""
    texts = [f"film {start + (i - 1 if i % 4 == 1 else i)} was fine" for i in range(n)]
    return {"text": texts, "mood": ["glad" if i // 2 % 2 else "sad" for i in range(n)]}


def write_rows(path, columns):
    """The columns as a file in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def write_task(path, rows=None, **changes):
    """A task at `path` with its training rows beside it; `...` as a change removes a key."""
    content = {key: value for key, value in (TASK | changes).items() if value is not ...}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    data = content.get("data")
    if rows != {} and isinstance(data, dict) and "train" in data:
        write_rows(path.parent / data["train"], rows or reviews())
    return path
