"""Which MLflow store: its URI, and what is wrong with it that can be told before training."""

import base64
import http.client
import os
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from benchmark.errors import UserError, nearest
from benchmark.tracking.client import sqlite_file

DEFAULT_URI = "sqlite:///mlflow.db"
SCHEMES = (
    *("", "file", "http", "https", "sqlite", "postgresql", "mysql", "mssql"),
    *("databricks", "databricks-uc", "uc"),
)
"""Those of the stores that MLflow comes with; "" is a folder."""
_DATABASES = ("postgresql", "mysql", "mssql")
_SERVERS = ("http", "https")
_PORTS = {"http": 80, "https": 443}
_PROBE_S = 0.5
_OTHER_CREDENTIALS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4")
_HEADER = b"SQLite format 3\0"
_WHAT_ELSE = (
    "or leave MLflow to `hift-bench sync` later, with --tracking-uri sqlite:///mlflow.db now"
)


def tracking_uri(uri: str | None) -> str:
    """The URI of the store: `uri` if it is given, else MLFLOW_TRACKING_URI, else a local sqlite file.

    Raises UserError for a scheme that MLflow has no store for.
    """
    found = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    try:
        scheme = _scheme(found).partition("+")[0]
    except ValueError as error:
        raise UserError(f"tracking URI {found}: {error}") from None
    plugins = (entry.name for entry in entry_points(group="mlflow.tracking_store"))
    if scheme not in (schemes := {*SCHEMES, *plugins}):
        known = nearest(scheme, schemes - {""})
        named = without_password(found)
        raise UserError(f"tracking URI {named}: MLflow has no store {scheme}://{known}")
    return found


def usable(uri: str | None) -> str:
    """`tracking_uri`, if nothing forbids its use.

    Raises UserError where the store refuses: no server listens, or it does not know the user; a file that is
    no database; a driver that is not installed. A server that does not answer within half a second is not
    waited for: it may be slow, and training does not need it.
    """
    found = tracking_uri(uri)
    if complaint := _complaint(found):
        raise UserError(f"tracking URI {without_password(found)}: {complaint}")
    return found


def is_remote(uri: str) -> bool:
    """Whether a server holds the store, and not a file or a folder."""
    return _scheme(uri) not in ("", "file", "sqlite")


def without_password(uri: str) -> str:
    """The URI as it may be printed."""
    password = urllib.parse.urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri


def _scheme(uri: str) -> str:
    return urllib.parse.urlsplit(uri).scheme


def _complaint(uri: str) -> str | None:
    if (path := sqlite_file(uri)) is not None:
        return _file_complaint(path)
    if _scheme(uri).partition("+")[0] in _DATABASES and (complaint := _driver_complaint(uri)):
        return complaint
    return _within(_PROBE_S, lambda: _refusal(uri))


def _file_complaint(path: Path) -> str | None:
    """Why this file cannot be an sqlite database; its folder is made if it is missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "rb") as file:
            start = file.read(len(_HEADER))
    except FileNotFoundError:
        return None if path.parent.is_dir() else f"the folder {path.parent} cannot be made"
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return None if start in (b"", _HEADER) else "the file is not an SQLite database"


def _driver_complaint(uri: str) -> str | None:
    """Why SQLAlchemy cannot open this database; the extra `team` brings psycopg, for PostgreSQL."""
    import sqlalchemy

    try:
        sqlalchemy.make_url(uri).get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed; for PostgreSQL, pip install 'hift-benchmark[suite,team]'"
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        return " ".join(str(error).split())
    return None


def _within(seconds: float, ask: Callable[[], str | None]) -> str | None:
    """The answer of `ask`, or None if it takes longer."""
    answers: list[str | None] = []
    thread = threading.Thread(target=lambda: answers.append(ask()), daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None


def _refusal(uri: str) -> str | None:
    """Why the server at `uri` cannot be used; None if it answers, or if this cannot be told."""
    parts = urllib.parse.urlsplit(uri)
    try:
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
        if not host or not port:
            return None
        with socket.create_connection((host, port), timeout=_PROBE_S):
            pass
    except ConnectionRefusedError:
        return f"nothing listens at {host}:{port}; start the server, {_WHAT_ELSE}"
    except socket.gaierror as error:
        if error.errno != socket.EAI_NONAME:
            return None
        return f"the host {host} is not known; mistyped? Correct it, {_WHAT_ELSE}"
    except (OSError, ValueError):
        return None
    return _refusal_of_user(parts) if parts.scheme in _SERVERS else None


def _refusal_of_user(parts: urllib.parse.SplitResult) -> str | None:
    """Why an MLflow server does not let this user in; None if it does, or if this cannot be told."""
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or urllib.parse.unquote(parts.username or "")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or urllib.parse.unquote(
        parts.password or ""
    )
    host = parts.netloc.rpartition("@")[2]
    path = f"{parts.path.rstrip('/')}/api/2.0/mlflow/experiments/get?experiment_id=0"
    request = urllib.request.Request(f"{parts.scheme}://{host}{path}")
    if user:
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    try:
        urllib.request.urlopen(request, timeout=_PROBE_S).close()
    except urllib.error.HTTPError as error:
        elsewhere = Path("~/.mlflow/credentials").expanduser().exists()
        if error.code != 401 or (
            not user and (elsewhere or any(map(os.environ.get, _OTHER_CREDENTIALS)))
        ):
            return None
        who = f"does not accept the password of the user {user}" if user else "wants a user"
        return f"the server {who}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    except (OSError, ValueError, http.client.HTTPException):
        pass
    return None
