"""A run as a job: what runs on the node of a cluster, and how the runner follows it through a shared folder.

The job claims its run, as a runner does, so that no other makes it meanwhile, and starts its process. The
lines of the process go into a file, from which the runner reads them.
"""

import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TextIO

from benchmark.errors import UserError
from benchmark.lifetime import RUNNER, end_with
from benchmark.matrices import claims
from benchmark.matrices.claims import Claim
from benchmark.matrices.processes import RUN
from benchmark.records import record
from benchmark.records.spec import RunSpec


def events_of(spec: RunSpec, scratch: Path) -> Path:
    """The file for what the process of the run prints to stdout."""
    return scratch.resolve() / f"{spec.run_id}.events"


def command(arguments: Sequence[str]) -> list[str]:
    """What makes a run in an interpreter of its own; `arguments`: the files of its spec and its folder."""
    return [sys.executable, "-m", RUN, *(str(Path(path).resolve()) for path in arguments)]


BEGAN = "began"
"""The event by which a job tells that it starts the process of its run."""
HELD = 75
"""The exit status of a job whose run another process has claimed (EX_TEMPFAIL)."""
LOOK_S = 1.0
"""Seconds between two looks at a job."""
CLAIM_S = 60.0
"""Seconds for which a job waits for its claim: it may start before the runner has given its own up."""


@dataclass(frozen=True)
class Work:
    """What a job does: `command`, which makes a run. record: the file that it writes. variables: of the
    environment, set over those of the node. lock, events, log: the files of the claim, stdout and stderr.
    folder: the working directory."""

    spec_hash: str
    command: Sequence[str]
    record: Path
    variables: Mapping[str, str]
    lock: Path
    events: Path
    log: Path
    folder: Path = field(default_factory=Path.cwd)

    @classmethod
    def of(
        cls,
        spec: RunSpec,
        arguments: Sequence[str],
        log: TextIO,
        claim: Claim,
        scratch: Path,
        variables: Mapping[str, str],
    ) -> Self:
        """The job of a run, as the arguments of `Place.start` say it; files of an earlier try are emptied."""
        log.truncate(0)
        events = events_of(spec, scratch)
        events.unlink(missing_ok=True)
        return cls(
            spec_hash=spec.hash,
            command=command(arguments),
            record=Path(arguments[-1]).resolve() / f"{spec.run_id}.json",
            variables=variables,
            lock=claim.path.resolve(),
            events=events,
            log=Path(log.name).resolve(),
        )

    def __call__(self) -> int:
        """Make the run; returns the exit status of its process, or HELD."""
        claim = self._claim()
        if claim is None:
            return HELD
        try:
            return 0 if self._is_done() else self._run(claim)
        finally:
            claim.release()

    def checkpoint(self) -> Any:
        """The job that SLURM puts into the queue in place of one that it stops for its time or for another:
        the same, which goes on from the checkpoint of the run (submitit's protocol)."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _claim(self) -> claims.Claim | None:
        deadline = time.monotonic() + CLAIM_S
        while (claim := claims.take(self.lock)) is None and time.monotonic() < deadline:
            time.sleep(0.1)
        return claim

    def _is_done(self) -> bool:
        """Whether another process has made the run while the job waited."""
        try:
            last = record.load(self.record)
        except UserError:
            return False
        return last.status == "success" and last.spec_hash == self.spec_hash

    def _run(self, claim: claims.Claim) -> int:
        with open(self.events, "a") as events, open(self.log, "a") as log:
            print(json.dumps({"event": BEGAN}), file=events, flush=True)
            return subprocess.call(
                self.command,
                stdout=events,
                stderr=log,
                pass_fds=(claim.file,),
                preexec_fn=functools.partial(end_with, os.getpid()),
                cwd=self.folder,
                env={**os.environ, **self.variables, RUNNER: str(os.getpid())},
            )


def make(work: Work) -> int:
    """`work`, where a function is wanted."""
    return work()


class Handle(Protocol):
    """A job that was submitted."""

    def ended(self) -> bool: ...
    def cancel(self) -> None: ...
    def result(self) -> int:
        """What `Work` returned. Raises an exception whose message says what became of the job otherwise."""


class Followed:
    """The Process of a job; its stdout are the lines of the file `events`."""

    def __init__(self, handle: Handle, events: Path, log: TextIO) -> None:
        self.stdout = Lines(events, self._ended)
        self._handle, self._log = handle, log
        self._looking = threading.Lock()
        self._code: int | None = None

    def kill(self) -> None:
        self._handle.cancel()

    def wait(self) -> int:
        """Wait until the job has ended; returns its exit status, 1 if it has none. Then the log says why."""
        while not self._ended():
            time.sleep(LOOK_S)
        with self._looking:
            if self._code is None:
                try:
                    self._code = self._handle.result()
                except Exception as error:  # of the library, for all that a cluster does to a job
                    said = " ".join(str(error).split("\n")[:2]).strip() or type(error).__name__
                    self._log.write(f"the job ended without a result: {said}\n")
                    self._log.flush()
                    self._code = 1
            return self._code

    def _ended(self) -> bool:
        with self._looking:
            return self._code is not None or self._handle.ended()


class Lines:
    """The lines of a file that grows, until `ended` is true; a context manager, as a pipe is."""

    def __init__(self, path: Path, ended: Any) -> None:
        self._path, self._ended = path, ended

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[str]:
        while not self._path.exists():
            if self._ended():
                return
            time.sleep(LOOK_S)
        with open(self._path, encoding="utf-8", errors="replace") as file:
            begun = ""
            while True:
                ended = self._ended()  # before the last look
                for part in file:
                    begun += part
                    if begun.endswith("\n"):
                        yield begun
                        begun = ""
                if ended:
                    return
                time.sleep(LOOK_S)
