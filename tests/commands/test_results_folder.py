"""What lies in a results folder beside sound records: named in a line, never lost, and it stops nothing."""

import json
from pathlib import Path

import pytest
from factories import make_record
from runs import FAILING, TWO_CELLS, Watch, pretend

from benchmark.matrices import matrix
from benchmark.records import record
from benchmark.tracking import tracker

FOREIGN = "results/m/golden.json: passed over, as it is no record of a run"
TRUNCATED = "results/m/glue-sst2_tiny-bert_full_s0.json"


@pytest.fixture
def call(cli, write, monkeypatch):
    """Call a command on m.yaml, with nothing tracked: its exit status, stdout and stderr."""

    watch = Watch()
    monkeypatch.setattr(tracker, "Tracker", lambda *_, **__: watch)
    write(TWO_CELLS)

    def call(command, *arguments):
        return cli(command, "m.yaml", *arguments)

    call.watch = watch
    return call


@pytest.fixture
def littered(call):
    """Two records, one cut short, and a foreign JSON file. Returns the bytes of the damaged record."""
    for cell in matrix.load(Path("m.yaml")).cells:
        (spec,) = cell.runs()
        record.write(make_record(spec), Path("results/m") / f"{spec.run_id}.json")
    Path("results/m/golden.json").write_text(json.dumps({"runs": {}, "made_on": {}}))
    whole = Path(TRUNCATED).read_bytes()
    Path(TRUNCATED).write_bytes(whole[: len(whole) // 2])
    return whole[: len(whole) // 2]


@pytest.mark.parametrize("command", ["status", "report", "sync", "plan", "rescore"])
def test_each_command_names_it_once_and_goes_on(littered, call, command):
    if command == "rescore":  # which reads the predictions that no record here has
        next(Path("results/m").glob("*head*")).unlink()
    code, _, err = call(command)
    assert code == 0, err
    damaged = [line for line in err.splitlines() if TRUNCATED in line]
    assert len(damaged) == 1 and damaged[0].endswith("its run counts as missing")
    assert err.count(FOREIGN) == (command in ("status", "report", "sync"))
    assert Path(TRUNCATED).read_bytes() == littered
    if command == "sync":
        assert call.watch.of("fill") == [("glue-sst2_tiny-bert_head_s0",)]
    if command == "report":
        assert "not run yet" in Path("reports/m/report.md").read_text()


def test_run_puts_a_damaged_record_aside_and_trains_again(littered, call, in_process):
    in_process(pretend())
    code, _, err = call("run")
    assert code == 0 and "\n1 trained, 1 already done\n" in err
    assert err.count(TRUNCATED) == err.count(FOREIGN) == 1
    assert record.load(Path(TRUNCATED)).status == "success"
    assert (Path("results/m/superseded") / Path(TRUNCATED).name).read_bytes() == littered
    assert Path("reports/m/index.html").is_file()


def test_status_and_report_say_why_a_run_was_refused(call, in_process):
    in_process(FAILING)
    code, _, err = call("run")
    assert code == 2 and "\n2 refused; mend what was refused\n" in err
    code, out, _ = call("status", "--format", "json")
    assert [row["problems"] for row in json.loads(out)] == ["1 refused: made up"] * 2
    call("report")
    lines = Path("reports/m/report.md").read_text().splitlines()
    (refused,) = [line for line in lines if line.startswith("| refused | made up |")]
    assert refused.endswith("| 2 |"), "both runs in one row"
    _, out, _ = call("plan", "--format", "json")
    assert [row["state"] for row in json.loads(out)] == ["refused"] * 2
