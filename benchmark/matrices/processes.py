"""How a run's process begins: as a fork of a warm server, or as an interpreter of its own.

A run is benchmark/run/recipe.py. The server is benchmark/run/warm.py, which says what the two sides send each
other. Both are named here and not imported: the runner loads nothing of a run.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

RUN, SERVER = "benchmark.run.recipe", "benchmark.run.warm"


class Process(Protocol):
    """The part of subprocess.Popen that the runner uses."""

    @property
    def stdout(self) -> Iterable[str] | None: ...
    def terminate(self) -> None: ...
    def wait(self) -> int: ...


class Starter(Protocol):
    """A way to start runs."""

    def prepare(self, variables: Mapping[str, str]) -> None:
        """Begin, without waiting, what a start with these environment variables will need."""

    def start(self, arguments: Sequence[str], log: TextIO, variables: Mapping[str, str]) -> Process:
        """A run with the command line `arguments`, its stderr in `log`."""


@contextlib.contextmanager
def starter(warm: bool, log: Path, note: Callable[[str], None]) -> Iterator[Starter]:
    """The way to start runs: `warm` where there is a fork to rely on (Linux), else each by itself.

    `log` gets what the server prints; `note` is told when no server can be had.
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
    """Runs as `python -m benchmark.run.recipe`, each of which imports everything itself."""

    def prepare(self, variables: Mapping[str, str]) -> None: ...

    def start(self, arguments: Sequence[str], log: TextIO, variables: Mapping[str, str]) -> Process:
        return subprocess.Popen(
            [sys.executable, "-m", RUN, *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=variables,
        )


class NoFork(Exception):
    """The server has ended, or must not be forked; says why."""


class Forks:
    """Runs forked from a server, which is started again where it ended or another environment is needed.

    After a server that could not serve, interpreters.
    """

    def __init__(self, log: Path, note: Callable[[str], None]) -> None:
        self._log, self._note = log, note
        self._server: Server | None = None
        self._instead: Interpreters | None = None

    def prepare(self, variables: Mapping[str, str]) -> None:
        if self._instead is None:
            self._serving(variables)

    def start(self, arguments: Sequence[str], log: TextIO, variables: Mapping[str, str]) -> Process:
        if self._instead is None:
            try:
                return self._serving(variables).fork(arguments, log)
            except NoFork as error:
                self.close()
                self._instead = Interpreters()
                self._note(f"no warm server, so runs start slowly: {error}; log: {self._log}")
        return self._instead.start(arguments, log, variables)

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
    """One warm server with the environment `variables`; `log` is appended to."""

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
        """Whether it is alive and has this environment."""
        return self._process.poll() is None and self._variables == dict(variables)

    def fork(self, arguments: Sequence[str], log: TextIO) -> "Fork":
        """Raises NoFork."""
        request = json.dumps({"arguments": list(arguments)}).encode()
        reader, writer = os.pipe()
        try:
            with contextlib.suppress(ConnectionError):  # a server that has ended gives no reply
                socket.send_fds(self._socket, [request], [writer, log.fileno()])
            reply = self.reply()
        finally:
            os.close(writer)
        if reply is None or "error" in reply:
            os.close(reader)
            raise NoFork(reply["error"] if reply else f"it ended with {self.wait()}")
        return Fork(self, reply["pid"], reader)

    def reply(self) -> dict[str, Any] | None:
        """What the server sends next; None where it has ended."""
        with contextlib.suppress(ConnectionError):
            packet = self._socket.recv(1 << 16)
            return json.loads(packet) if packet else None
        return None

    def wait(self) -> int:
        """The exit status of the server itself, when it has ended."""
        return self._process.wait()

    def close(self) -> None:
        """End the server: at once where it waits for a request, by a signal where it imports or has a run,
        which ends with it."""
        self._socket.close()
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Fork:
    """A run that a server forked, as a Process."""

    def __init__(self, server: Server, pid: int, stdout: int) -> None:
        """`stdout`: the file descriptor to read it from."""
        self.stdout = open(stdout, encoding="utf-8", errors="replace")  # noqa: SIM115 (wait closes it)
        self._server, self._pid = server, pid
        self._returncode: int | None = None

    def terminate(self) -> None:
        if self._returncode is None:
            os.kill(
                self._pid, signal.SIGTERM
            )  # the server keeps the pid from others until the next run

    def wait(self) -> int:
        """The run's exit status, as in subprocess; the server's where that ended and took the run along."""
        if self._returncode is None:
            reply = self._server.reply()
            self._returncode = self._server.wait() if reply is None else reply["returncode"]
        self.stdout.close()
        return self._returncode
