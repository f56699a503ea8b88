"""The dashboard shows the tracked runs, at a free port, to this machine only."""

import os
import signal
import socket
import subprocess
import time
import urllib.request

import pytest
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
def test_dashboard_serves_the_runs_on_this_machine_alone(uri, tmp_path):
    track(uri, tmp_path / "r", [make_spec()])
    address, command = dashboard(uri, 0)
    with open(tmp_path / "server.log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                page = urllib.request.urlopen(address, timeout=5).read()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.5)
        assert b"MLflow" in page
        strange = urllib.request.Request(address, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(strange, timeout=5)
        assert refused.value.code == 403
    finally:
        os.killpg(server.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
        server.wait(30)
