"""The dashboard shows the tracked runs at a free port, to this machine only or with passwords."""

import contextlib
import os
import re
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
from benchmark.tracking import dashboard


def test_dashboard_refuses_a_server_and_moves_off_a_taken_port(uri):
    with pytest.raises(UserError, match="has its own dashboard"):
        dashboard.command("http://127.0.0.1:5000")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        address, command = dashboard.command(uri, port)
    assert address.startswith("http://127.0.0.1:") and not address.endswith(f":{port}")
    assert command[command.index("--host") + 1] == "127.0.0.1" and "--app-name" not in command


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3"])
def test_others_reach_no_server_without_passwords(uri, monkeypatch, tmp_path, host):
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_AUTH_CONFIG_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"{host}: .*pip install 'hift-benchmark\[suite,team\]'$"):
        dashboard.command(uri, 0, host)
    monkeypatch.setattr(dashboard, "find_spec", lambda name: name)
    for password in ("", "elevenchars"):
        monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", password)
        with pytest.raises(UserError, match=r"set MLFLOW_AUTH_ADMIN_PASSWORD, 12 characters"):
            dashboard.command(uri, 0, host)


def test_a_server_for_others_asks_for_passwords(uri, monkeypatch, tmp_path):
    monkeypatch.setattr(dashboard, "find_spec", lambda name: name)
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "twelve chars")
    monkeypatch.delenv("MLFLOW_FLASK_SERVER_SECRET_KEY", raising=False)
    _, command = dashboard.command(uri, 0, "0.0.0.0", tmp_path / "artifacts")
    assert command[command.index("--app-name") + 1] == "basic-auth"
    kept = (tmp_path / "artifacts").as_uri()
    assert command[command.index("--artifacts-destination") + 1] == kept
    assert len(os.environ["MLFLOW_FLASK_SERVER_SECRET_KEY"]) >= 32


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_of_another_machine_is_refused(uri, monkeypatch, host):
    monkeypatch.setattr(dashboard, "_check_auth", lambda host: None)
    with pytest.raises(UserError, match=f"{host}: no address of this machine"):
        dashboard.command(uri, 0, host)


@pytest.mark.slow
def test_the_command_serves_the_runs_on_this_machine_alone(uri, tmp_path):
    """As the README has it, in the folder of mlflow.db. If it is killed, no server is left; its other ends
    are in test_server."""
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
        server.kill()
        server.wait(30)
    assert len(left) >= 2, "mlflow and uvicorn"
    assert psutil.wait_procs(left, timeout=30)[1] == []
