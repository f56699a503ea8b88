"""Places: what an engine gives the runner. On each, one run at a time is made."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TextIO

from benchmark.matrices.claims import Claim
from benchmark.matrices.processes import Process
from benchmark.records.spec import RunSpec


class Place(Protocol):
    """Where a run is started, followed and cancelled.

    apart: the runs are jobs: each claims its run itself once it starts. lasting: they go on without the
    runner.
    """

    @property
    def apart(self) -> bool: ...

    @property
    def lasting(self) -> bool: ...

    @property
    def gpu(self) -> str | None:
        """The GPU of its runs, as CUDA_VISIBLE_DEVICES names it; None: it has the whole machine, or none."""

    def prepare(self, spec: RunSpec) -> None:
        """Prepare the start of the run, without waiting for it."""

    def start(self, spec: RunSpec, arguments: Sequence[str], log: TextIO, claim: Claim) -> Process:
        """Start the run with the command line `arguments`. Its stderr goes to `log`, which was appended to
        before. `claim`: that of the runner, which a place that is not apart hands on to the process."""


Engine = Callable[[Path, Callable[[str], None]], contextlib.AbstractContextManager[Sequence[Place]]]
"""Opens an engine: its arguments are a folder for its files, and what shows a note; it gives the places."""
