"""RunRecord: reading returns what was written, the schema is strict, and no write loses a record."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import pytest
from factories import make_failure, make_record, make_spec

from benchmark import files
from benchmark.errors import UserError
from benchmark.records import record


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made_up" / "run.json"


def test_round_trip(path):
    for written in (make_failure(make_spec(), "oom", "no memory"), make_record()):
        record.write(written, path)
        assert record.load(path) == written
        assert path.read_text() == written.to_json()


def test_the_text_is_stable_json_with_sorted_keys():
    text = make_record().to_json()
    assert text == make_record().to_json() and text.endswith("}\n")
    assert list(json.loads(text)) == sorted(json.loads(text))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_record_holds_nan_or_infinity(path, bad):
    good = make_record()
    with pytest.raises(ValueError, match="JSON"):
        record.write(dataclasses.replace(good, environment={"load": bad}), path)
    assert not path.exists()
    record.write(good, path)
    path.write_text(path.read_text().replace('"load": ', "").replace("0.8", json.dumps(bad), 1))
    with pytest.raises(UserError, match=f"{path.name}: unreadable record"):
        record.load(path)


def change(data, dotted, value):
    *parents, last = dotted.split(".")
    for key in parents:
        data = data[key]
    if value is ...:
        del data[last]
    else:
        data[last] = value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("statuss", "success", r"statuss: unknown key \(did you mean \"status\"\?\)"),
        ("train.stepz", 3, r"train\.stepz: unknown key \(did you mean \"steps\"\?\)"),
        ("spec_hash", ..., "spec_hash: missing"),
        ("scores.main", ..., r"scores\.main: missing"),
        ("status", "sucess", r"status: 'sucess' is unknown \(did you mean \"success\"\?\)"),
        ("scores.n", "many", r"scores\.n: 'many' is not int"),
        ("scores.n", 1.5, r"scores\.n: 1\.5 is not int"),
        ("scores.n", True, r"scores\.n: True is not int"),
        ("scores.main", "0.8", r"scores\.main: '0\.8' is not float"),
        ("scores.main", True, r"scores\.main: True is not float"),
        ("scores.higher_is_better", 1, r"scores\.higher_is_better: 1 is not bool"),
        ("scores.all", [1], r"scores\.all: \[1\] is not a table"),
        ("scores.all.f1", None, r"scores\.all\.f1: None is not float"),
        ("scores.main", 0.99, r"scores\.main: 0\.99 is not all\.accuracy, which is 0\.8$"),
        ("scores.all.accuracy", 0.81, r"scores\.main: 0\.8 is not all\.accuracy, which is 0\.81$"),
        ("scores.all.accuracy", ..., r"scores\.metric: 'accuracy' is not in all \(valid: f1\)"),
        ("memory", [], r"memory: \[\] is not a table"),
        ("memory.kind", "gpu", r"memory\.kind: 'gpu' is unknown"),
        ("run_id", None, "run_id: None is not str"),
        ("schema_version", 2, "schema_version: 2 is not 1"),
        ("schema_version", ..., "schema_version: None is not 1"),
    ],
)
def test_off_schema_is_refused_by_file_and_key(path, key, value, message):
    data = json.loads(make_record().to_json())
    change(data, key, value)
    files.write_text(path, json.dumps(data))
    with pytest.raises(UserError, match=f"^{path}: {message}"):
        record.load(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 1', "\xff\xfe"])
def test_no_record_at_all_is_unreadable(path, text):
    path.parent.mkdir()
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=f"^{path}: unreadable record") as raised:
        record.load(path)
    assert "\n" not in str(raised.value)


def test_a_float_may_be_written_without_a_point_and_optional_parts_as_null(path):
    data = json.loads(make_record().to_json())
    change(data, "scores.main", 1)
    change(data, "scores.all.accuracy", 1)
    change(data, "memory", None)
    files.write_text(path, json.dumps(data))
    loaded = record.load(path)
    assert loaded.scores.main == 1.0 and isinstance(loaded.scores.main, float)
    assert loaded.memory is None


def test_an_older_record_lacks_what_was_added_since(path):
    """A field with a default (also a default factory) may be missing; it then reads as the default."""
    whole = make_record()
    data = json.loads(whole.to_json())
    parts = ((data, whole), (data["train"], whole.train), (data["inputs"], whole.inputs))
    for values, part in parts:
        for item in dataclasses.fields(part):
            default = (item.default, item.default_factory) != (dataclasses.MISSING,) * 2
            if default and values[item.name] in (None, 0, 0.0, [], {}):
                del values[item.name]
    assert "evaluations" not in data and "group_tokens" not in data["train"]
    data["memory"]["predicted"] = None  # a field that was never filled, and is no more
    files.write_text(path, json.dumps(data))
    assert record.load(path) == whole


@pytest.mark.parametrize("dies_in", ["fsync", "replace"])
def test_a_write_that_breaks_off_leaves_the_old_record_and_no_litter(path, monkeypatch, dies_in):
    old, new = make_record(score=0.5), make_record(score=0.6)
    record.write(old, path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, dies_in, full)
    with pytest.raises(OSError, match="No space"):
        record.write(new, path)
    assert record.load(path) == old
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_process_killed_between_write_and_replace_leaves_the_old_record(path):
    old = make_record(score=0.5)
    record.write(old, path)
    dying = (
        "import os, signal, sys; from pathlib import Path; from benchmark import files\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_text(Path(sys.argv[1]), 'half')"
    )
    done = subprocess.run([sys.executable, "-c", dying, str(path)], check=False)
    assert done.returncode == -9
    assert record.load(path) == old
    assert record.load_all(path.parent) == [old], "what it left is no record"


def test_a_record_of_another_spec_is_moved_aside_however_often(path):
    records = [make_record(make_spec(lr=lr)) for lr in (1e-5, 2e-5, 3e-5, 4e-5)]
    for one in records:
        record.write(one, path)
    assert record.load(path) == records[-1]
    aside = path.parent / "superseded"
    assert [record.load(p) for p in sorted(aside.iterdir(), key=os.path.getmtime)] == records[:-1]
    assert record.load_all(path.parent) == [records[-1]], "superseded records are in no table"


def test_the_same_spec_run_again_replaces_its_record(path):
    record.write(make_failure(make_spec(), "failed", "killed"), path)
    record.write(make_record(), path)
    assert record.load(path).status == "success"
    assert not (path.parent / "superseded").exists()


def test_an_unreadable_record_is_moved_aside_too(path):
    path.parent.mkdir()
    path.write_bytes(b"{ half a rec\xff")
    record.write(make_record(), path)
    assert (path.parent / "superseded" / "run.json").read_bytes() == b"{ half a rec\xff"


def test_load_all_is_ordered_by_name_and_names_what_it_passes_over(tmp_path):
    for name in ("b", "a"):
        record.write(make_record(make_spec(label=name)), tmp_path / f"{name}.json")
    assert [r.spec["label"] for r in record.load_all(tmp_path)] == ["a", "b"]
    assert record.load_all(tmp_path / "none") == []
    (tmp_path / "c.json").write_text("{}")
    (tmp_path / "d.json").write_text((tmp_path / "a.json").read_text()[:-3])
    said = []
    assert [r.spec["label"] for r in record.load_all(tmp_path, note=said.append)] == ["a", "b"]
    assert said[0] == f"{tmp_path}/c.json: passed over, as it is no record of a run"
    assert said[1].startswith(f"{tmp_path}/d.json: unreadable record: ") and len(said) == 2


def test_the_curve_reads_back_as_columns(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text("step,loss,step_ms\n1,0.5,\n2,,3.25\n")
    curve = record.read_curve(path)
    assert curve["step"] == [1.0, 2.0]
    assert curve["loss"][0] == 0.5 and math.isnan(curve["loss"][1])
    assert math.isnan(curve["step_ms"][0]) and curve["step_ms"][1] == 3.25


def test_a_record_from_before_standard_errors_loads(path):
    record.write(make_record(), path)
    data = json.loads(path.read_text())
    del data["scores"]["stderr"]
    path.write_text(json.dumps(data))
    assert record.load(path).scores.stderr is None
