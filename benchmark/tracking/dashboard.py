"""The command of MLflow's own server over a store: for this machine, or with passwords for a team."""

import errno
import ipaddress
import os
import secrets
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmark.errors import UserError
from benchmark.tracking import view
from benchmark.tracking.client import connect, sqlite_file
from benchmark.tracking.uris import tracking_uri, usable

_SERVERS = ("http://", "https://")
_NOT_OURS = "no address of this machine; 0.0.0.0 stands for all of them"
_SHORTEST_PASSWORD = 12  # MLflow's own limit


def command(
    uri: str | None, port: int = 5000, host: str = "127.0.0.1", artifacts: Path | None = None
) -> tuple[str, list[str]]:
    """Address and command of MLflow's server at `host` and `port`, or at a free port where that is taken.

    artifacts: the folder in which the server keeps what clients send it. On a loopback address the server
    asks for no password, and refuses requests for another host and cross-site requests, as MLflow does by
    itself. On every other one it asks each user for a password (MLflow's basic auth). Sets environment
    variables that the command inherits.

    Raises UserError where `uri` cannot be used or is a tracking server, which has a UI already, and where
    `host` is no address of this machine, or one that others reach while basic auth is not set up.
    """
    if (found := tracking_uri(uri)).startswith(_SERVERS):
        raise UserError(f"{found}: a tracking server has its own dashboard; open that address")
    usable(found)
    public = not _is_loopback(host)
    if public:
        _check_auth(host)
    port = _free_port(host, port)
    if (database := sqlite_file(found)) and not database.exists():
        connect(found)  # a matrix may start on it at the same time
    # without this MLflow starts six job workers, which Ctrl-C does not end
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    parts = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", found]
    parts += ["--host", host, "--port", str(port), "--workers", "1"]
    if artifacts is not None:
        parts += ["--artifacts-destination", artifacts.resolve().as_uri()]
    if public:
        parts += ["--app-name", "basic-auth"]
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}", parts


def views(uri: str | None, address: str) -> dict[str, str]:
    """The address of the saved view of each experiment that has one, in the server at `address`."""
    experiments = connect(tracking_uri(uri)).search_experiments()
    return {
        e.name: view.address(address, e.experiment_id)
        for e in experiments
        if view.VIEW_TAG in e.tags
    }


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens at `host`."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UserError(f"--host {host}: {_NOT_OURS}") from None
    return all(ipaddress.ip_address(str(where[0])).is_loopback for *_, where in found)


def _check_auth(host: str) -> None:
    """Raises UserError if MLflow's basic auth cannot start; sets the key that it signs its forms with."""
    reason = f"--host {host}: others reach this server, so it asks them for passwords"
    if find_spec("flask_wtf") is None:
        raise UserError(f"{reason}, for which you pip install 'hift-benchmark[suite,team]'")
    password = os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD", "")
    known = os.environ.get("MLFLOW_AUTH_CONFIG_PATH") or Path("basic_auth.db").exists()
    if (not password and not known) or 0 < len(password) < _SHORTEST_PASSWORD:
        raise UserError(
            f"{reason}; set MLFLOW_AUTH_ADMIN_PASSWORD, {_SHORTEST_PASSWORD} characters or more, for the"
            " user admin"
        )
    os.environ.setdefault("MLFLOW_FLASK_SERVER_SECRET_KEY", secrets.token_hex(32))


def _free_port(host: str, wanted: int) -> int:
    for port in (wanted, 0):
        try:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                return int(probe.getsockname()[1])
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise UserError(f"--host {host}: {_NOT_OURS}") from None
    raise UserError(f"port {wanted}: in use, and no other port on {host} is free")
