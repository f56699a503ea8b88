"""Predicted beside measured: the error and its verdict from what is on record, and what is not said so."""

import dataclasses
import json

import pytest

from benchmark.errors import UserError
from benchmark.memory.measured import Measured
from benchmark.memory.setting import Setting
from benchmark.tables import definition, render


def put(results, name, **changes):
    made = Measured(
        setting=dataclasses.asdict(Setting(model="a<b", options={"group_size": 2})),
        setting_hash="0" * 12,
        status="success",
        kind="counted_cpu_tensors",
        device="cpu",
        predicted=101,
        peak=100,
        phases={},
        reserved=None,
        rss=1,
        environment={},
        code={},
    )
    folder = results / "memory"
    folder.mkdir(exist_ok=True)
    record = dataclasses.asdict(dataclasses.replace(made, **changes))
    (folder / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")


def table(results):
    return render.render(definition.load("memory-measured"), results)


def test_nothing_measured_is_said(tmp_path):
    (row,) = table(tmp_path).rows
    assert row["verdict"] == "not run" and "--measure" in row["why"]


def test_each_measurement_has_its_error_and_verdict(tmp_path):
    put(tmp_path, "a")
    put(tmp_path, "b", predicted=97)
    put(tmp_path, "c", predicted=104, kind="cuda", device="a GPU")
    put(tmp_path, "d", status="oom", peak=None)
    rows = table(tmp_path).rows
    assert [row["error_percent"] for row in rows] == [
        pytest.approx(1.0),
        pytest.approx(-3.0),
        pytest.approx(4.0),
        None,
    ]
    assert [row["verdict"] for row in rows] == ["within", "outside", "within", "cannot run here"]
    assert rows[3]["why"] == "out of memory" and rows[0]["m"] == 2
    assert "a&lt;b" in table(tmp_path).text("html")


def test_a_record_of_another_schema_is_refused_by_name(tmp_path):
    put(tmp_path, "a", schema_version=2)
    with pytest.raises(UserError, match=r"a\.json: schema_version: 2 is not 1"):
        table(tmp_path)
