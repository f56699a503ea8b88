"""The command line: tables on stdout alone, everything else on stderr, exit codes, and help everywhere."""

import csv
import io
import json
import shutil
import sqlite3
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from factories import make_failure, make_record
from runs import FAILING, TWO_CELLS, pretend

from benchmark.cli import app
from benchmark.matrices import listing, matrix
from benchmark.models.registry import MODELS
from benchmark.records import record
from benchmark.strategies import STRATEGIES
from tasks.base import names

COMMANDS = sorted(c.name or c.callback.__name__ for c in app.registered_commands)
FORMATS = ["text", "json", "csv", "md"]
RUNS = ["glue-sst2_tiny-bert_full_s0", "glue-sst2_tiny-bert_head_s0"]


def parse(text, format):
    """Rows of text values, read by the format's own rules."""
    if format == "json":
        return [
            {k: "" if v is None else str(v) for k, v in row.items()} for row in json.loads(text)
        ]
    if format == "csv":
        return list(csv.DictReader(io.StringIO(text)))
    lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_the_module_is_the_command_too():
    """`python -m benchmark regress` once did nothing and exited 0."""
    command = [sys.executable, "-m", "benchmark", "no-such-command"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no-such-command" in done.stderr


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(cli, here, command):
    code, out, err = cli(*filter(None, [command, "--help"]))
    assert (code, err) == (0, "")
    assert "Usage: hift-bench" in out and "--help" in out
    if not command:
        assert all(f"\n  {name} " in out for name in COMMANDS)
    assert [p.name for p in Path().iterdir()] == ["m.yaml"]


def test_short_help_the_version_and_a_matrix_by_its_name(cli, here):
    for arguments in (("-h",), ("plan", "-h")):
        code, printed, _ = cli(*arguments)
        assert code == 0 and "Usage: hift-bench" in printed
    assert cli("--version")[:2] == (0, f"hift-bench {version('hift-benchmark')}\n")
    code, printed, _ = cli("plan", "demo", "--format", "json")
    assert code == 0 and len(json.loads(printed)) > 2
    Path("demo").write_text(TWO_CELLS)
    code, printed, _ = cli("plan", "demo", "--format", "json")
    assert len(json.loads(printed)) == 2, "a file of that name comes first"
    code, _, err = cli("plan", "dmo")
    assert code == 2 and "no such matrix file" in err


def test_every_command_says_what_it_does(cli):
    for command in app.registered_commands:
        assert command.callback.__doc__.strip().endswith("."), command


@pytest.mark.parametrize("format", FORMATS)
def test_plan_in_every_format(cli, here, format):
    code, out, err = cli("plan", "m.yaml", "--format", format)
    assert code == 0
    assert err == (
        "2 cells, 2 runs (0 of them lr trials), 42 steps; still to do: 2 runs, 42 steps\n"
        "time: 2 runs were not timed on this machine: --calibrate\n"
    )
    if format == "text":
        assert all(run_id in out for run_id in RUNS) and out.count("missing") == 2
        return
    rows = parse(out, format)
    assert [row["run_id"] for row in rows] == RUNS
    assert [row["state"] for row in rows] == ["missing"] * 2
    assert [row["steps"] for row in rows] == ["40", "2"]
    specs = [spec for cell in matrix.load(Path("m.yaml")).cells for spec in cell.runs()]
    assert [row["hash"] for row in rows] == [spec.hash for spec in specs]


@pytest.mark.parametrize("format", FORMATS)
def test_run_and_status_print_one_summary(cli, here, in_process, untracked, format):
    in_process(pretend(score=lambda spec: 0.25))
    code, printed, _ = cli("run", "m.yaml", "--format", format)
    assert code == 0
    assert cli("status", "m.yaml", "--format", format) == (0, printed, "")
    if format != "text":
        rows = parse(printed, format)
        assert len(rows) == 2 and len({tuple(row) for row in rows}) == 1
    assert "full" in printed and "head" in printed and "0.25" in printed


def test_what_is_for_the_person_goes_to_stderr(cli, here, in_process, untracked):
    in_process(pretend())
    code, out, err = cli("run", "m.yaml", "--format", "json")
    assert code == 0 and json.loads(out)
    for said in (
        "[1/2] glue/sst2 tiny-bert full, seed 0",
        "\n2 trained\n",
        "reports/m/index.html",
        " dashboard\n           then open http://127.0.0.1:5000",
    ):
        assert said in err
    assert (
        Path("reports/m/index.html").is_file()
        and ("report", "reports/m/index.html") in untracked.told
    )
    code, out, err = cli("run", "m.yaml", "--format", "json")
    assert code == 0 and "2 already done" in err.splitlines()


@pytest.mark.parametrize("status", ["failed", "oom", "diverged"])
def test_a_failed_cell_is_exit_1_and_in_table_and_report(cli, here, in_process, untracked, status):
    in_process(pretend(status=lambda spec: status if spec.strategy == "head" else "success"))
    code, out, err = cli("run", "m.yaml", "--format", "json")
    assert code == 1 and "Traceback" not in err
    assert status in out and f"\n1 trained, 1 {status}; " in err
    assert status in Path("reports/m/report.md").read_text()
    assert cli("status", "m.yaml")[0] == 0, "showing it is no failure"


def test_an_unsupported_cell_is_no_failure(cli, here, in_process, untracked):
    in_process(pretend(status=lambda spec: "unsupported"))
    assert cli("run", "m.yaml")[0] == 0


def test_refused_once_said_once(cli, here, in_process, untracked):
    in_process(FAILING)
    code, _, err = cli("run", "m.yaml")
    assert code == 2
    assert [x for x in err.splitlines() if x.startswith("hift-bench:")] == ["hift-bench: made up"]


def test_limit_results_and_reports(cli, here, in_process, untracked):
    in_process(pretend())
    places = ["--results", "a/b", "--reports", "c/d"]
    assert cli("run", "m.yaml", "--limit", "1", *places)[0] == 0
    assert [p.name for p in Path("a/b/m").glob("*.json")] == [f"{RUNS[0]}.json"]
    assert Path("c/d/m/report.md").is_file() and not Path("results").exists()
    _, out, _ = cli("plan", "m.yaml", "--results", "a/b", "--format", "json")
    assert [row["state"] for row in json.loads(out)] == ["done", "missing"]


def test_report_prints_where_it_is_and_comes_from_records_alone(cli, here):
    (full, head) = (cell.runs()[0] for cell in matrix.load(Path("m.yaml")).cells)
    record.write(make_record(full, score=0.75), Path("results/m") / f"{full.run_id}.json")
    record.write(make_failure(head, "oom", "no room"), Path("results/m") / f"{head.run_id}.json")
    code, out, err = cli("report", "m.yaml")
    assert (code, out, err) == (0, "reports/m/index.html\n", "")
    assert "no room" in Path("reports/m/report.md").read_text()
    with open("reports/m/cells.csv") as file:
        assert "0.75" in file.read()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("tasks", names()),
        ("models", list(MODELS)),
        ("strategies", list(STRATEGIES)),
        ("matrices", [path.stem for path in sorted(listing.MATRICES.glob("*.yaml"))]),
    ],
)
def test_list(cli, what, expected, format):
    code, out, err = cli("list", what, "--format", format)
    assert (code, err) == (0, "")
    assert "Undefined" not in out, "a default is its value, one that is made anew each time too"
    if format == "text":
        assert all(name in out for name in expected)
    else:
        assert [next(iter(row.values())) for row in parse(out, format)] == expected


def test_data_root_names_the_mirror(cli, here, in_process, untracked, mirror, monkeypatch):
    rows = {"sentence": ["good"] * 64, "label": [1] * 64}
    root = mirror(train=rows, validation=rows)
    monkeypatch.setenv("HIFT_DATA_ROOT", "elsewhere")
    in_process(pretend())
    Path("m.yaml").write_text(TWO_CELLS.replace("twin", "mirror"))
    assert cli("run", "m.yaml")[0] == 2
    assert cli("run", "m.yaml", "--data-root", str(root))[0] == 0


def test_ctrl_c_is_exit_130_without_a_traceback(cli, here, in_process, untracked):
    def stop():
        raise KeyboardInterrupt

    in_process(stop)
    code, _, err = cli("run", "m.yaml")
    assert code == 130 and "Traceback" not in err and "the same command continues" in err


@pytest.mark.slow
def test_record_mlflow_and_report_of_a_real_run_agree(cli, here, in_process, empty_store):
    """One cell trained for two steps, tracked in a local sqlite store."""
    in_process()
    shutil.copy(empty_store, "m.db")
    Path("m.yaml").write_text(TWO_CELLS.replace("full: {lr: 1.0e-3, batch_size: 4}, ", ""))
    code, out, err = cli("run", "m.yaml", "--format", "json", "--tracking-uri", "sqlite:///m.db")
    assert code == 0, err
    (kept,) = record.load_all(Path("results/m"))
    with sqlite3.connect("m.db") as store:
        query = "select m.key, m.value, step from metrics m join tags t using (run_uuid) where t.value = ?"
        metrics = store.execute(query, (kept.run_id,)).fetchall()
    last = {key: value for key, value, _ in metrics}
    assert last["score/accuracy"] == kept.scores.main
    curve = record.read_curve(Path("results/m") / kept.curve)
    losses = {step: value for key, value, step in metrics if key == "curve/loss"}
    assert list(losses.values()) == pytest.approx(curve["loss"])
    assert kept.scores.main in json.loads(out)[0].values()
    with open("reports/m/cells.csv", newline="") as file:
        (cell,) = csv.DictReader(file)
    assert float(cell["mean"]) == kept.scores.main and int(cell["peak_bytes"]) == (
        kept.memory.peak_allocated
    )


def test_the_installed_command_keeps_stdout_for_the_table(tmp_path):
    command = [
        str(Path(sys.executable).parent / "hift-bench"),
        "list",
        "strategies",
        "--format",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["strategy"] for row in json.loads(done.stdout)] == list(STRATEGIES)
