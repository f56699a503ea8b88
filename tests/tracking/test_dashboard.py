"""The dashboard shows the tracked runs, at a free port, to this machine only."""

import contextlib
import re
import signal
import socket
import subprocess
import time
import urllib.request

import psutil
import pytest
from documents import surroundings
from factories import make_spec
from store import track

from benchmark.errors import UserError
from benchmark.tracking.tracker import dashboard


def test_dashboard_refuses_a_server_and_moves_off_a_taken_port():
    with pytest.raises(UserError, match="has its own dashboard"):
        dashboard("http://127.0.0.1:5000")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        address, command = dashboard("sqlite:///x.db", port)
    assert address.startswith("http://127.0.0.1:") and not address.endswith(f":{port}")
    assert command[command.index("--host") + 1] == "127.0.0.1"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_command_serves_the_runs_on_this_machine_alone(uri, tmp_path, number):
    """As the README has it, in the folder of mlflow.db. However it ends, no server is left."""
    track(uri, tmp_path / "r", [make_spec()])
    log = tmp_path / "server.log"
    with open(log, "wb") as file:
        command = ["hift-bench", "dashboard"]
        settings = {"cwd": tmp_path, "env": surroundings(), "start_new_session": True}
        server = subprocess.Popen(command, stdout=file, stderr=file, **settings)
    try:
        page, deadline = b"", time.monotonic() + 120
        while not page:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
            if address := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
                with contextlib.suppress(OSError):
                    page = urllib.request.urlopen(address[0], timeout=10).read()
        assert b"MLflow" in page
        strange = urllib.request.Request(address[0], headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(strange, timeout=5)
        assert refused.value.code == 403
    finally:
        left = psutil.Process(server.pid).children(recursive=True)
        server.send_signal(number)
        server.wait(30)
    assert len(left) >= 2, "mlflow and uvicorn"
    assert psutil.wait_procs(left, timeout=30)[1] == []
