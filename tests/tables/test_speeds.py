"""The table of step times: filled by `hift-bench speed --save` alone, and silent where noise would speak."""

import json

import pytest
from factories import make_record, make_spec, write_run

from benchmark.errors import UserError
from benchmark.models import shapes
from benchmark.tables import definition, render
from benchmark.timing import speed_record
from benchmark.timing.speed_record import Row, Timed

COMMAND = ["speed", "tiny", "--batch-size", "2", "--seq-len", "8", "--sweeps", "2"]


@pytest.fixture
def tiny(write, monkeypatch):
    """A GPT-2 of three blocks, so five units, under the name tiny; an idle machine of two cores."""
    sizes = {"n_embd": 32, "n_layer": 3, "n_head": 2, "vocab_size": 100, "n_positions": 16}
    shape = shapes.Shape("GPT2LMHeadModel", "GPT2Config", sizes)
    monkeypatch.setitem(shapes.SHAPES, "tiny", shape)
    monkeypatch.setattr(speed_record.os, "getloadavg", lambda: (0.113, 9.0, 9.0))


def table(results):
    return render.render(definition.load("speed"), results)


def put(results, **changes):
    """A timing of full and hift, 1.2 times as long, on an idle machine; returns its file."""
    rows = [
        Row(
            **{"name": name, "median_ms": 10.0, "p90_ms": 11.0, "mean_ms": 10.0 * ratio},
            **{"ratio_to_full": ratio, "ratio_low": ratio * 0.99, "ratio_high": ratio * 1.01},
            **{"ratio_to_limit": 1.5, "saved_activation_bytes": 2**20, "state_bytes": 2**21},
            **{"steps": 30, "m": m},
        )
        for name, ratio, m in (("full", 1.0, None), ("hift", 1.2, 2))
    ]
    made = {
        **{"model": "a<b", "group_size": 2, "optimizer": "adamw", "batch_size": 8, "seq_len": 128},
        **{"sweeps": 3, "started": "2026-01-02T03:04:05+00:00", "load": 0.1, "rows": rows},
        "environment": {"cpu": "made up", "device": "cpu", "threads": 1, "cores": 2},
        "code": {"git_sha": "abc1234", "dirty": False},
    }
    return speed_record.save(Timed(**made | changes), results / "speed")


def test_a_saved_timing_fills_the_table(tiny, cli, tmp_path):
    code, out, err = cli(*COMMAND, "--save", "--results", str(tmp_path), "--format", "json")
    assert code == 0, err
    printed = json.loads(out)
    (file,) = (tmp_path / "speed").iterdir()
    assert f"record: {file}" in err and file.name == "tiny_adamw_2x8_m1.json"
    kept = json.loads(file.read_text())
    for row in kept["rows"]:  # the name says both
        assert row.pop("strategy") in (row["name"], None) and row.pop("options") == {}
    assert kept["rows"] == printed and kept["load"] == 0.11 and kept["code"]["version"]
    rows = table(tmp_path).rows
    assert [row["name"] for row in rows] == ["forward", "limit", "bare", "full", "hift", "lora"]
    for row, source in zip(rows, printed, strict=True):
        assert (row["ratio_to_full"], row["steps"]) == (source["ratio_to_full"], 2 * 5)
        assert source["ratio_low"] <= source["ratio_to_full"] <= source["ratio_high"]


def test_no_timing_is_overwritten(tmp_path):
    first, second = put(tmp_path), put(tmp_path, load=0.2)
    assert (first.name, second.name) == ("a-b_adamw_8x128_m2.json", "a-b_adamw_8x128_m2.2.json")
    assert [one.load for one in speed_record.read_all(tmp_path / "speed")] == [0.2, 0.1]


def test_records_of_runs_fill_nothing(tmp_path):
    write_run(tmp_path / "minilm_glue", make_record(make_spec(matrix="minilm_glue")))
    (row,) = table(tmp_path).rows
    assert row["verdict"] == "not run" and "hift-bench speed --save" in row["why"]


def test_the_table_shows_ratio_range_machine_and_code(tmp_path):
    put(tmp_path)
    made = table(tmp_path)
    shown = made.shown[1]
    assert (shown["timing"], shown["model, batch × length"]) == ("1", "a<b, 8 × 128")
    assert (shown["step of"], shown["over full (range)"]) == ("hift, m = 2", "1.20 (1.19–1.21)")
    assert shown["verdict"] == "no published value"
    for format in ("md", "html", "tex"):
        text = made.text(format)
        assert (
            "Timing 1: " in text
            and "made up, cpu, 1 threads" in text
            and "load 0.1 on 2 cores" in text
        )
        assert "abc1234" in text
    assert "a&lt;b" in made.text("html")


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"load": 0.5}, "no published value"),
        ({"load": 0.51}, "inconclusive"),  # a quarter of two cores
        ({"load": None}, "no published value"),
        ({"load": 9.0, "others": 0.05}, "no published value"),  # the load of what ended before
        ({"load": 0.1, "others": 0.051}, "inconclusive"),
    ],
)
def test_a_busy_machine_is_inconclusive(tmp_path, changes, verdict):
    put(tmp_path, **changes)
    rows = table(tmp_path).rows
    assert {row["verdict"] for row in rows} == {verdict}
    said = "used 5% of its" if "others" in changes else "load 0.51 on 2 cores"
    assert all(said in row["why"] for row in rows if row["why"])


@pytest.mark.parametrize(
    ("high", "verdict"), [(1.28, "no published value"), (1.30, "inconclusive")]
)
def test_a_ratio_that_differs_between_sweeps_is_inconclusive(tmp_path, high, verdict):
    file = put(tmp_path)
    kept = json.loads(file.read_text())
    kept["rows"][1] |= {"ratio_low": 1.17, "ratio_high": high}  # of 1.2; the cap is 10 % of it
    file.write_text(json.dumps(kept))
    full, hift = table(tmp_path).rows
    assert (full["verdict"], hift["verdict"]) == ("no published value", verdict)


def test_a_part_of_a_sweep_is_inconclusive(tmp_path):
    file = put(tmp_path)
    kept = json.loads(file.read_text())
    kept["rows"][1] |= {"sweep_steps": kept["rows"][1]["steps"] + 1}
    file.write_text(json.dumps(kept))
    full, hift = table(tmp_path).rows
    assert (full["verdict"], hift["verdict"]) == ("no published value", "inconclusive")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("schema_version", 2, "schema_version: 2 is not 1"),
        ("rows", [{"name": "full"}], "median_ms: missing"),
        ("loads", 1.0, 'loads: unknown key (did you mean "load"?)'),
    ],
)
def test_a_spoilt_timing_is_one_line(tmp_path, key, value, said):
    file = put(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(UserError) as refused:
        table(tmp_path)
    assert said in str(refused.value) and str(file) in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--save", "--evaluation"], "--save: keeps step times; leave out --evaluation"),
        (
            ["--save", "--strategies", "hift,lora"],
            "full, which is not among --strategies hift,lora",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_before_it_is_timed(write, refused, arguments, said):
    assert said in refused("speed", *arguments)


def test_a_busy_machine_is_said_before_the_timing(tiny, cli, tmp_path, monkeypatch):
    monkeypatch.setattr(speed_record.os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    code, _, err = cli(*COMMAND, "--save", "--results", str(tmp_path))
    assert code == 0 and "the machine is busy (load 99.0)" in err
    (file,) = (tmp_path / "speed").iterdir()
    assert 0 <= json.loads(file.read_text())["others"] <= 1
