"""Attempt: one try at a run, as the runner sees it, from the start of its process to its record."""

import queue
import signal
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from benchmark.matrices import child, planning, processes
from benchmark.matrices.claims import Claim
from benchmark.matrices.engines.job import BEGAN, HELD
from benchmark.matrices.engines.places import Place
from benchmark.records import record
from benchmark.records.record import RunRecord
from benchmark.records.spec import RunSpec

Inbox = queue.SimpleQueue[tuple["Attempt", str | None]]
"""Lines that processes print, each with its attempt; None follows the last one."""

_LAST_LINES_S = 1.0
"""Seconds in which the last lines of a process that has ended are read."""


class Attempt:
    """One try at `spec`, of which the runner has the `claim`.

    Its events come through the inbox of `start`. All else that its process prints goes to a log in `scratch`.
    """

    def __init__(self, spec: RunSpec, claim: Claim, results: Path, scratch: Path) -> None:
        self.spec, self.folder = spec, planning.folder_of(spec, results)
        self._claim: Claim | None = claim
        self._path = planning.path_of(spec, results)
        self._spec_path = scratch / f"{spec.run_id}.spec.json"
        self._log_path = scratch / f"{spec.run_id}.log"
        self._log: TextIO | None = None
        self._process: processes.Process | None = None
        self._stopped: dict[str, Any] = {}
        self._before = child.identity(self._path)
        self.began = time.time()
        self._limit_s: float | None = None
        self.deadline: float | None = None

    def start(self, place: Place, inbox: Inbox, limit_s: float | None) -> None:
        """Start the process; `deadline` is the time.monotonic() after which it has had `limit_s`. A job's
        counts from its own start, which it tells."""
        assert self._claim is not None
        # not kept through a power failure, unlike what the run writes: each try writes it anew
        self._spec_path.write_text(self.spec.model_dump_json(), encoding="utf-8")
        self._log = open(self._log_path, "a", encoding="utf-8")  # noqa: SIM115 (release closes it)
        arguments = [str(self._spec_path), str(self.folder)]
        self._process = place.start(self.spec, arguments, self._log, self._claim)
        self._limit_s = limit_s
        if place.apart:
            self._give_up_claim()  # which the job takes
        else:
            self._begin()
        threading.Thread(target=self._attend, args=(self._process, inbox), daemon=True).start()

    def _begin(self) -> None:
        if self._limit_s is not None:
            self.deadline = time.monotonic() + self._limit_s

    def _attend(self, process: processes.Process, inbox: Inbox) -> None:
        """Put the lines of the process into the inbox, and None once it has ended.

        Its stdout may be closed long before that, and a process that it left behind may hold it open after.
        """
        assert process.stdout is not None
        reader = threading.Thread(target=self._read, args=(process.stdout, inbox), daemon=True)
        reader.start()
        try:
            process.wait()
            reader.join(_LAST_LINES_S)
        finally:
            inbox.put((self, None))

    def _read(self, stdout: processes.Lines, inbox: Inbox) -> None:
        with stdout:
            for line in stdout:
                inbox.put((self, line))

    def event(self, line: str) -> dict[str, Any] | None:
        """The event in a line that the process printed. None: it is none, or says that the job began, or why
        the run stops."""
        event = child.event(line)
        if event is None and self._log is not None:  # of a native library, or cut off by a kill
            self._log.write(line)
        if event is not None and event["event"] == BEGAN:
            self._begin()
            return None
        if event is not None and "error" in event:  # refused or unsupported
            self._stopped = event
            return None
        return event

    def finish(self) -> RunRecord | None:
        """Wait until the process has ended. Returns the record, which says why if the run wrote none; None if
        it was a job that found its run claimed by another one."""
        assert self._process is not None
        code = self._process.wait()
        if self._has_record:  # whatever the exit status
            return record.load(self._path)
        if code == HELD and self._claim is None:
            return None
        if self._stopped:
            return self.write(self._stopped["event"], self._stopped["error"])
        status = "interrupted" if code == -signal.SIGTERM else "failed"
        return self.write(status, child.why(code, self._log_path))

    def kill(self) -> None:
        """Kill the process, whatever it does: all that it writes is whole."""
        if self._process is not None:
            self._process.kill()

    def killed(self, status: str, reason: str) -> RunRecord:
        """As `finish` after `kill`, with `status` and `reason` if the run wrote no record."""
        if self._process is not None:
            self._process.wait()
        return record.load(self._path) if self._has_record else self.write(status, reason)

    @property
    def _has_record(self) -> bool:
        """Whether there is a record that was not there before."""
        return child.identity(self._path) != self._before

    def release(self) -> None:
        """Give the run free, once its process has ended."""
        if self._log is not None:
            self._log.close()
        self._give_up_claim()

    def _give_up_claim(self) -> None:
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def write(self, status: str, reason: str) -> RunRecord:
        """Write and return a record without results."""
        return child.write_unfinished(self.spec, self._path, self.began, status, reason)
