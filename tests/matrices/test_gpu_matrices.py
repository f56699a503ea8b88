"""The matrices for a card of 24 GB: planned without network, with the settings that `fit` found."""

import csv
from pathlib import Path

import pytest

from benchmark.matrices import foreseen, listing, matrix, planning
from benchmark.strategies.hift import HiftOptions

CELLS = Path(__file__).parents[2] / "reports" / "fit" / "cells.csv"
SHAPES = {"llama31_8b_24gb": "llama-3.1-8b", "qwen25_7b_24gb": "qwen2.5-7b"}


@pytest.mark.parametrize("name", SHAPES)
def test_it_plans_and_hift_has_what_fit_found(name, tmp_path, monkeypatch):
    monkeypatch.setattr(foreseen.environment, "accelerators", lambda: ["a card"])
    loaded = matrix.load(listing.MATRICES / f"{name}.yaml")
    planned = planning.plan(loaded, tmp_path)
    assert {p.state for p in planned} == {"waiting", "missing"}
    assert [p.fault for p in planned if p.fault] == []
    with CELLS.open(encoding="utf-8") as file:
        (found,) = [
            row
            for row in csv.DictReader(file)
            if (row["model"], row["budget_gib"], row["host_gib"]) == (SHAPES[name], "24", "")
        ]
    (hift,) = [cell for cell in loaded.cells if cell.strategy == "hift"]
    spec = hift.runs(1e-5)[0]
    options = ("weights", "idle", "update", "partition", "group_size")
    given = dict(HiftOptions(**spec.options))
    assert {key: str(given[key]) for key in options} == {key: found[key] for key in options}
    settings = ("precision", "optimizer", "checkpointing", "loss")
    assert {key: str(getattr(spec, key)) for key in settings} == {
        key: found[key] for key in settings
    }
    batch = f"{spec.accumulate} x {spec.batch_size} x {spec.max_length}"
    assert batch == found["batch"]
