"""No downgrade: a success stays on record when its process, or the runner, is ended after it was written."""

import functools
import json
import shlex
import sys
import time
from pathlib import Path

import psutil
import pytest
from factories import make_failure, make_record, make_spec
from runs import TWO_CELLS, Watch

from benchmark.matrices import matrix
from benchmark.records import record

ONE_CELL = TWO_CELLS.replace(", head: {lr: 1.0e-3, max_steps: 2}", "")
RUN = "glue-sst2_tiny-bert_full_s0"
ENDINGS = {
    "exit 1 past every handler": "os._exit(1)",
    "SIGKILL, as of the kernel out of memory": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGSEGV in a library's destructor": "os.kill(os.getpid(), signal.SIGSEGV)",
    "an exit handler that fails": "atexit.register(os._exit, 3)",
    "an exit handler that raises": "atexit.register(lambda: 1 / 0)",
    "an exception": "1 / 0",
    "a last word": """print('{"event": "refused", "error": "too late"}'); sys.exit(2)""",
}


STEP = json.dumps({"event": "step", "step": 1, "total": 1, "loss": 0.5})
SCRIPT = """\
import atexit, os, shutil, signal, sys, time
spec, folder = sys.argv[1:]
if os.path.exists({made!r}):
    print({step!r}, flush=True)
    os.makedirs(folder, exist_ok=True)
    shutil.copy({made!r}, folder)
{ending}
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Make runs start a script that puts a record with `status` (None: no record) there, then runs `ending`.

    The record is made here: the script imports nothing of the suite, which would take it half a second.
    """

    def use(ending, status="success"):
        made, script = tmp_path / "made" / f"{RUN}.json", tmp_path / "child.py"
        made.unlink(missing_ok=True)
        if status:
            (tmp_path / "made_up.yaml").write_text(ONE_CELL)
            (spec,) = matrix.load(tmp_path / "made_up.yaml").cells[0].runs()
            failed = status != "success"
            record.write(
                make_failure(spec, status, "made up") if failed else make_record(spec), made
            )
        script.write_text(SCRIPT.format(step=STEP, made=str(made), ending=ending))
        python = tmp_path / "python"
        command = shlex.join([python_of_this, "-I", "-S", str(script)])
        python.write_text(f'#!/bin/sh\nshift 2\nexec {command} "$@"\n')
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))

    python_of_this = sys.executable
    return use


@pytest.fixture
def go(go):
    """As `go`, without a warm server: `child` stands for the interpreter of a run."""
    return functools.partial(go, warm=False)


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_no_downgrade_by_a_crash_after_the_record(go, child, results, ending):
    child(ending)
    outcome, watch = go(ONE_CELL)
    assert record.load(results / f"{RUN}.json").status == "success"
    assert (outcome.ran, outcome.failed, outcome.refused) == (1, 0, [])
    assert watch.of("finish") == watch.of("finished") == [(RUN, "success")]
    assert go(ONE_CELL)[0].ran == 0


def test_the_record_of_a_run_that_failed_and_then_crashed_stays_too(go, child, results):
    child("os._exit(1)", status="diverged")
    outcome, watch = go(ONE_CELL)
    assert record.load(results / f"{RUN}.json").status == "diverged"
    assert outcome.failed == 1 and watch.of("finish") == [(RUN, "diverged")]


@pytest.mark.parametrize(
    ("ending", "message"), [("os._exit(1)", "exit 1"), ("os._exit(0)", "without a record")]
)
def test_the_record_of_an_earlier_try_is_not_taken_for_this_one(
    go, child, results, ending, message
):
    child("", status="timeout")
    go(ONE_CELL)
    child(ending, status=None)
    outcome, watch = go(ONE_CELL)
    latest = record.load(results / f"{RUN}.json")
    assert latest.status == "failed" and message in latest.error
    assert outcome.failed == 1 and watch.of("finish") == [(RUN, "failed")]


def stop_once(there):
    """A Watch that is stopped by Ctrl-C at the first step, once the file `there` exists."""

    def stop(row):
        while not there.exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    return Watch(stop)


def test_no_downgrade_by_ctrl_c_after_the_record(go, child, results, tmp_path):
    pid = tmp_path / "pid"
    child(f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    watch = stop_once(results / f"{RUN}.json")
    with pytest.raises(KeyboardInterrupt):
        go(ONE_CELL, watch=watch)
    started = pid.read_text() if pid.exists() else ""  # empty: killed before it wrote
    assert not started or not psutil.pid_exists(int(started))
    assert record.load(results / f"{RUN}.json").status == "success"
    assert watch.of("finish") == [(RUN, "success")]
    assert go(ONE_CELL)[0].ran == 0


def test_ctrl_c_before_the_record_interrupts_a_second_try_as_well(go, child, results):
    child("", status="timeout")
    go(ONE_CELL)
    child(f"print({STEP!r}, flush=True); time.sleep(60)", status=None)
    with pytest.raises(KeyboardInterrupt):
        go(ONE_CELL, watch=stop_once(results / f"{RUN}.json"))
    assert record.load(results / f"{RUN}.json").status == "interrupted"


@pytest.mark.parametrize("status", [s for s in record.STATUSES if s != "success"])
def test_no_downgrade_by_a_write_of_the_same_spec(tmp_path, status):
    path = tmp_path / "run.json"
    good, bad = make_record(), make_failure(make_spec(), status, "made up")
    assert record.write(bad, path) == bad and record.write(good, path) == good
    assert record.write(bad, path) == good == record.load(path)
    better = make_record(score=0.9)
    assert record.write(better, path) == better == record.load(path)
    other = make_failure(make_spec(lr=1e-3), status, "made up")
    assert record.write(other, path) == other == record.load(path)
    assert record.load_all(path.parent / "superseded") == [better]
    assert [p.name for p in Path(tmp_path).iterdir() if p.is_file()] == [path.name]
