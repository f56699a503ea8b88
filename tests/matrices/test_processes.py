"""How a run's process begins and ends: the warm server, what it refuses, and what outlives whom."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
from runs import TWO_CELLS, Watch, gone

from benchmark.matrices import processes, runner
from benchmark.matrices.engines import workers
from benchmark.tracking import tracker

PYTHON = sys.executable
WITH_RUNS = """\
import os, pathlib, sys
from benchmark.matrices import processes
sys.executable = {executable!r}
with processes.starter({warm}, pathlib.Path(os.devnull), print) as starter, open(os.devnull, "w") as log:
    for line in starter.start([], log, os.environ).stdout:
        print(line, flush=True)
"""


@pytest.fixture
def starting(tmp_path):
    """Start one process after another, `variables` in their environment; each run's lines of stdout and exit
    status come back."""
    notes = []
    with processes.starter(True, tmp_path / "warm.log", notes.append) as starter:

        def run(*arguments, **variables):
            with open(tmp_path / "log", "a") as log:
                process = starter.start(arguments, log, os.environ | variables)
                lines = list(process.stdout)
                return lines, process.wait()

        run.notes, run.start = notes, starter.start
        yield run


def test_a_fork_has_its_arguments_its_stdout_its_log_and_its_exit_status(
    executable, starting, tmp_path
):
    executable('echo "$1 and $2"; echo "to the log" >&2; exit "$3"')
    assert starting("a b", "c", "0") == (["a b and c\n"], 0)
    assert starting("d", "e", "3") == (["d and e\n"], 3)
    assert (tmp_path / "log").read_text() == "to the log\n" * 2
    assert starting.notes == []


def test_one_server_serves_one_environment(executable, starting):
    executable('echo "$PPID $HF_HUB_OFFLINE"')
    told = [starting(HF_HUB_OFFLINE=value)[0][0].split() for value in "1110"]
    servers, values = zip(*told, strict=True)
    assert values == ("1", "1", "1", "0")
    assert servers[0] == servers[1] == servers[2] != servers[3]
    assert not psutil.pid_exists(int(servers[0])), "the first has ended"


def test_a_server_with_another_thread_is_not_forked(executable, starting, tmp_path):
    executable('echo "$0"', before="import threading, time\nthreading.Timer(600, print).start()")
    lines, code = starting()
    assert lines[0].strip().endswith("python") and code == 0, "started as an interpreter"
    (note,) = starting.notes
    assert "it has 2 threads" in note and str(tmp_path / "warm.log") in note
    assert starting()[1] == 0 and len(starting.notes) == 1, "said once"


def test_a_server_that_cannot_start_is_done_without(executable, starting, tmp_path):
    executable("exit 3", before="raise SystemExit('no such library')")
    assert starting() == ([], 3)
    (note,) = starting.notes
    assert "it ended with 1" in note
    assert "no such library" in (tmp_path / "warm.log").read_text()


def test_a_server_in_which_cuda_is_initialised_is_not_forked(executable, starting):
    torch = "types.SimpleNamespace(cuda=types.SimpleNamespace(is_initialized=lambda: True))"
    executable("exit 0", before=f"sys.modules['torch'] = {torch}")
    starting()
    assert "it has initialised CUDA" in starting.notes[0]


def test_a_killed_server_takes_its_run_along_and_the_next_run_gets_a_new_one(
    executable, starting, tmp_path
):
    executable('echo "$$ $PPID"; exec sleep "$1"')
    with open(tmp_path / "log", "a") as log:
        process = starting.start(["60"], log, os.environ)
        run, server = map(int, next(iter(process.stdout)).split())
        os.kill(server, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert gone(run)
    lines, code = starting("0")
    assert code == 0 and int(lines[0].split()[1]) != server and starting.notes == []


RUN = """\
import atexit
def run():
    atexit.register(print, "the last line", end="")
    {run}
sys.modules["benchmark.run.recipe"].main = run
"""


def test_a_fork_ends_as_an_interpreter_does(executable, starting, tmp_path):
    """What it registered is called, what it printed is written, and an error is told."""
    executable("", before=RUN.format(run="return 2"))
    assert starting() == (["the last line"], 2)


def test_an_error_in_a_fork_is_a_traceback_in_the_log(executable, starting, tmp_path):
    executable("", before=RUN.format(run="raise RuntimeError('boom')"))
    assert starting() == (["the last line"], 1)
    log = (tmp_path / "log").read_text()
    assert log.startswith("Traceback") and log.endswith("RuntimeError: boom\n")


def test_ctrl_c_for_the_whole_group_does_not_end_the_server(executable, starting, tmp_path):
    executable('echo "$$ $PPID"; exec sleep "$1"')
    with open(tmp_path / "log", "a") as log:
        process = starting.start(["60"], log, os.environ)
        run, server = map(int, next(iter(process.stdout)).split())
        os.kill(server, signal.SIGINT)
        os.kill(run, signal.SIGINT)
        assert process.wait() == -signal.SIGINT
    assert int(starting("0")[0][0].split()[1]) == server


FORKING = """
import os, time
from benchmark.lifetime import end_together, end_with
end_with(os.getppid())
end_together()
if os.fork() == 0 and os.fork() == 0:
    print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("warm", [True, False], ids=["fork", "interpreter"])
def test_runs_end_with_their_runner(executable, tmp_path, warm):
    """Also when it is killed, and so closes nothing itself, and with what they have forked."""
    executable(f"exec {PYTHON} -c '{FORKING}'")
    code = WITH_RUNS.format(executable=sys.executable, warm=warm)
    runner = subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.PIPE, text=True)
    forked = int(runner.stdout.readline())
    family = [process.pid for process in psutil.Process(runner.pid).children(recursive=True)]
    assert forked in family and len(family) == (4 if warm else 3)
    runner.kill()
    runner.wait()
    assert all(map(gone, family))


def test_elsewhere_than_on_linux_there_is_no_server(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "darwin")
    with processes.starter(True, tmp_path / "log", print) as starter:
        assert isinstance(starter, processes.Interpreters)


@pytest.mark.parametrize(("options", "warm"), [([], True), (["--no-warm"], False)])
def test_no_warm_is_the_user_s_choice(cli, write, monkeypatch, options, warm):
    asked = []
    monkeypatch.setattr(workers, "engine", lambda at_once, warm: asked.append((at_once, warm)))
    monkeypatch.setattr(runner, "run", lambda *_, **__: runner.Outcome())
    monkeypatch.setattr(tracker, "Tracker", lambda *_: Watch())
    write(f"name: m\n{TWO_CELLS}")
    assert cli("run", "m.yaml", *options)[0] == 1, "nothing was run"
    assert asked == [(1, warm)]
