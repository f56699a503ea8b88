"""A real MLflow server that is stopped and started while a matrix runs has all of its runs at the end."""

import contextlib
import signal
import subprocess
import time
import urllib.request

import psutil
import pytest
from documents import surroundings
from factories import curve_rows, make_record, write_run
from servers import closed_port
from store import STEPS, content, fill, history, runs, three

from benchmark.tracking import tracker as tracking
from benchmark.tracking.tracker import Tracker


@contextlib.contextmanager
def server(folder, port, number):
    """A dashboard that gets the signal `number` at the end, after which none of its processes is left."""
    command = ["hift-bench", "dashboard", "--port", str(port)]
    with open(folder / "log", "ab") as log:
        settings = {"cwd": folder, "env": surroundings(), "stdout": log, "stderr": log}
        process = subprocess.Popen(command, **settings)
    try:
        deadline = time.monotonic() + 300
        while not answers(f"http://127.0.0.1:{port}/health"):
            said = (folder / "log").read_text()
            assert process.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.2)
        yield
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        process.wait(60)
        left = psutil.wait_procs(family, timeout=30)[1]
    assert len(family) >= 2 and left == [], "mlflow and uvicorn"


def answers(address):
    with contextlib.suppress(OSError):
        return urllib.request.urlopen(address, timeout=10).status == 200
    return False


@pytest.mark.slow
def test_a_server_that_is_stopped_and_started_has_every_run_once(uri, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tracking, "_SECONDS", {"answered": 60, "failed": 60, "local": 60})
    folder, port, records = tmp_path / "r", closed_port(), []

    def run(spec):
        tracker.start(spec)
        records.append(write_run(folder, make_record(spec), STEPS))
        tracker.steps(spec, curve_rows(records[-1], STEPS))
        tracker.finish(records[-1], folder)
        assert tracker._background.finish(stuck=lambda: False)

    first, second, third = three()
    with Tracker(f"http://127.0.0.1:{port}", "made_up") as tracker:
        with server(tmp_path, port, signal.SIGTERM):
            run(first)
        run(second)
        with server(tmp_path, port, signal.SIGINT):
            run(third)
            tracker.fill((record, folder) for record in records)
            assert tracker._background.finish(stuck=lambda: False)
            assert tracker.filled
    out, err = capfd.readouterr()
    assert out == "" and len(err.splitlines()) == 2, "the failure, and that all is there now"
    assert [entry[1] for entry in content(uri)] == ["FINISHED"] * 4
    assert [len(history(uri, run, "curve/loss")) for run in runs(uri, "run")] == [STEPS] * 3
    before = content(uri)
    assert fill(uri, folder, records) and content(uri) == before
