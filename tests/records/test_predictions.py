"""Prediction files: reading returns what was written, and malformed files are refused."""

import dataclasses
import json
import re

import pytest

from benchmark.errors import UserError
from benchmark.records import predictions

SCORED = predictions.Predictions(
    ids=["a", "b"], predictions=[1, "x\n"], references=[[0], {"k": 1}], scores=[0.0, 0.25]
)


@pytest.mark.parametrize("scores", [SCORED.scores, None])
def test_predictions_read_back_as_written(tmp_path, scores):
    path, table = tmp_path / "p.jsonl", dataclasses.replace(SCORED, scores=scores)
    predictions.write(path, table)
    assert predictions.read(path) == table
    assert [set(json.loads(line)) for line in path.read_text().splitlines()] == 2 * [
        {"id", "prediction", "reference"} | ({"score"} if scores else set())
    ]


def test_no_predictions_at_all_read_back_too(tmp_path):
    (tmp_path / "p.jsonl").write_text("")
    assert predictions.read(tmp_path / "p.jsonl").ids == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"score": 0.25', '"score": true', "line 2: score: True is not a number"),
        ('"score": 0.25', '"score": NaN', "line 2 has no id, prediction and reference"),
        (', "score": 0.25', "", "line 2: some lines have a score and others do not"),
        ('"id": "b", ', "", "line 2 has no id, prediction and reference"),
        ('{"id": "b"', '["id"', "line 2 has no id"),
    ],
)
def test_predictions_are_read_strictly(tmp_path, old, new, message):
    path = tmp_path / "p.jsonl"
    predictions.write(path, SCORED)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=re.escape(f"{path}: {message}")):
        predictions.read(path)
