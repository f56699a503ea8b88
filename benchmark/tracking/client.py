"""MLflow's client, with the time that its calls take; and its sqlite file, made whole or not at all."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOCK_S = 120.0  # MLflow takes seconds to create a store


class Calls:
    """The methods of an MlflowClient. `age` is how long the present call has waited for its answer."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._began = math.inf

    @property
    def age(self) -> float:
        """Seconds since the call that is being made began; below 0 while there is none."""
        return time.monotonic() - self._began

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._began = time.monotonic()
            try:
                return method(*args, **kwargs)
            finally:
                self._began = math.inf

        return call


def connect(uri: str) -> Calls:
    """A client of the store at `uri`. A sqlite file is created where it is missing (about 2 s).

    A lock file beside it keeps processes from creating or migrating it at once, which MLflow does not. It is
    created under another name, so that a process that is killed leaves no half of it.
    """
    path = sqlite_file(uri)
    if path is None:
        from mlflow import MlflowClient

        return Calls(MlflowClient(tracking_uri=uri))
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_name(f"{path.name}.lock"), timeout=_LOCK_S):
        if not path.exists() or not path.stat().st_size:
            new = path.with_name(f"{path.name}.new")
            new.unlink(missing_ok=True)
            _opened(f"sqlite:///{new}")
            os.replace(new, path)
        return Calls(_opened(uri))


def _opened(uri: str) -> "MlflowClient":
    """A client that has opened its store, which creates or migrates it."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    client.search_experiments(max_results=1)
    return client


def sqlite_file(uri: str) -> Path | None:
    """The file of a local sqlite store; None for other stores, and for one in memory."""
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    return None if path in ("", ":memory:") or path == uri else Path(path).resolve()
