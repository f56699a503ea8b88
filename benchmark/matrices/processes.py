"""Starts the process of a run: a fork of a warm server, or a new Python interpreter.

The process runs benchmark/run/recipe.py. The server is benchmark/run/warm.py, whose docstring defines the
messages between server and runner. Both are started by name and not imported, because the runner must not
load the libraries of a run.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from benchmark.lifetime import RUNNER

RUN, SERVER = "benchmark.run.recipe", "benchmark.run.warm"


class Lines(Protocol):
    """The part of an open text file that the runner uses."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *error: Any) -> Any: ...
    def __iter__(self) -> Iterator[str]: ...


class Process(Protocol):
    """The part of subprocess.Popen that the runner uses."""

    @property
    def stdout(self) -> Lines | None: ...
    def kill(self) -> None: ...
    def wait(self) -> int: ...


class Starter(Protocol):
    """A way to start runs."""

    def prepare(self, variables: Mapping[str, str]) -> None:
        """Prepare a start with these environment variables, without waiting for it."""

    def start(
        self,
        arguments: Sequence[str],
        log: TextIO,
        variables: Mapping[str, str],
        hold: Sequence[int] = (),
    ) -> Process:
        """Start a run with the command line `arguments`; its stderr goes to `log`. It inherits the open files
        `hold`, and so the locks on them."""


@contextlib.contextmanager
def starter(warm: bool, log: Path, note: Callable[[str], None]) -> Iterator[Starter]:
    """A Starter: forks of a warm server if `warm` and the system is Linux, otherwise new interpreters.

    log: the file for the output of the server. note: called with the reason if the server cannot start runs.
    """
    if not warm or sys.platform != "linux":
        yield Interpreters()
        return
    forks = Forks(log, note)
    try:
        yield forks
    finally:
        forks.close()


class Interpreters:
    """Runs as `python -m benchmark.run.recipe`. Each imports all libraries itself."""

    def prepare(self, variables: Mapping[str, str]) -> None: ...

    def start(
        self,
        arguments: Sequence[str],
        log: TextIO,
        variables: Mapping[str, str],
        hold: Sequence[int] = (),
    ) -> Process:
        return subprocess.Popen(
            [sys.executable, "-m", RUN, *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
            errors="replace",
            pass_fds=hold,
            env={**variables, RUNNER: str(os.getpid())},
        )


class NoFork(Exception):
    """The server has ended or must not be forked; the message gives the reason."""


class Forks:
    """Runs forked from a server. A new server starts if the last one has ended or has another environment.

    Once a server could not fork, all further runs are new interpreters.
    """

    def __init__(self, log: Path, note: Callable[[str], None]) -> None:
        self._log, self._note = log, note
        self._server: Server | None = None
        self._instead: Interpreters | None = None

    def prepare(self, variables: Mapping[str, str]) -> None:
        if self._instead is None:
            self._serving(variables)

    def start(
        self,
        arguments: Sequence[str],
        log: TextIO,
        variables: Mapping[str, str],
        hold: Sequence[int] = (),
    ) -> Process:
        if self._instead is None:
            try:
                return self._serving(variables).fork(arguments, log, hold)
            except NoFork as error:
                self.close()
                self._instead = Interpreters()
                self._note(f"no warm server, so each run starts slowly: {error}; log: {self._log}")
        return self._instead.start(arguments, log, variables, hold)

    def _serving(self, variables: Mapping[str, str]) -> "Server":
        if self._server is None or not self._server.serves(variables):
            self.close()
            self._server = Server(variables, self._log)
        return self._server

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


class Server:
    """One warm server with the environment `variables`. Its output is appended to `log`."""

    def __init__(self, variables: Mapping[str, str], log: Path) -> None:
        self._variables = dict(variables)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, open(log, "a", encoding="utf-8") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", SERVER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=self._variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def serves(self, variables: Mapping[str, str]) -> bool:
        """Whether the server is alive and has this environment."""
        return self._process.poll() is None and self._variables == dict(variables)

    def fork(self, arguments: Sequence[str], log: TextIO, hold: Sequence[int] = ()) -> "Fork":
        """A run with the command line `arguments`; its stderr goes to `log`. It inherits the open files
        `hold`. Raises NoFork."""
        request = json.dumps({"arguments": list(arguments)}).encode()
        reader, writer = os.pipe()
        try:
            with contextlib.suppress(ConnectionError):  # the server has ended; `reply` returns None
                socket.send_fds(self._socket, [request], [writer, log.fileno(), *hold])
            reply = self.reply()
        finally:
            os.close(writer)
        if reply is None or "error" in reply:
            os.close(reader)
            raise NoFork(reply["error"] if reply else f"it ended with {self.wait()}")
        return Fork(self, reply["pid"], reader)

    def reply(self) -> dict[str, Any] | None:
        """The next message of the server; None if it has ended."""
        with contextlib.suppress(ConnectionError):
            packet = self._socket.recv(1 << 16)
            return json.loads(packet) if packet else None
        return None

    def wait(self) -> int:
        """Wait until the server ends; returns its exit status."""
        return self._process.wait()

    def close(self) -> None:
        """End the server. A server that waits for a request ends by itself. One that is still importing, or
        has a run, is killed, and the run with it."""
        self._socket.close()
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Fork:
    """A Process that a server forked."""

    def __init__(self, server: Server, pid: int, stdout: int) -> None:
        """stdout: the file descriptor from which the run's stdout is read."""
        self.stdout = open(stdout, encoding="utf-8", errors="replace")  # noqa: SIM115 (whoever reads it closes it)
        self._server, self._pid = server, pid
        self._returncode: int | None = None
        self._waiting = threading.Lock()

    def kill(self) -> None:
        if self._returncode is None:
            # the server does not reap the process before the next run, so the pid is not another's
            os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait until the run ends; returns its exit status, negative for a signal as in subprocess. If the
        server has ended, and the run with it, returns that of the server. Several threads may wait."""
        with self._waiting:
            if self._returncode is None:
                reply = self._server.reply()
                self._returncode = self._server.wait() if reply is None else reply["returncode"]
            return self._returncode
