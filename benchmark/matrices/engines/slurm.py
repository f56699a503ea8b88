"""Runs as jobs of SLURM, through submitit. Its local executor runs them here, to try the rest out."""

import contextlib
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TextIO

from benchmark.errors import UserError
from benchmark.files import write_text
from benchmark.matrices import child
from benchmark.matrices.claims import Claim
from benchmark.matrices.engines.job import Followed, Work, events_of
from benchmark.matrices.engines.places import Engine
from benchmark.matrices.processes import Process
from benchmark.records.spec import RunSpec

TIMEOUT_MIN = 24 * 60
"""Minutes after which a job is stopped, unless the user says otherwise; submitit's own default is 5."""


def engine(jobs: int, parameters: Mapping[str, Any]) -> Engine:
    """At most `jobs` jobs at once, queued ones included.

    parameters: as `submitit.AutoExecutor.update_parameters` takes them, and `cluster`, such as local. Raises
    UserError for others, and without submitit or SLURM.
    """
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise UserError(
            "--engine slurm needs submitit: pip install 'hift-benchmark[slurm]'"
        ) from None
    named = {"timeout_min": TIMEOUT_MIN, **parameters}
    cluster = str(named.pop("cluster", "slurm"))
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise UserError(
            "--engine slurm: this machine has no sbatch; run it on a login node, or try it with "
            "--slurm cluster=local"
        )
    with tempfile.TemporaryDirectory() as folder:  # for its refusals, before anything is written
        _executor(Path(folder), cluster, named)

    @contextlib.contextmanager
    def opened(scratch: Path, note: Callable[[str], None]) -> Iterator[list[Slot]]:
        scratch = scratch.resolve()
        yield [Slot(_executor(scratch / "jobs", cluster, named), cluster, scratch)] * jobs

    return opened


def _executor(folder: Path, cluster: str, parameters: Mapping[str, Any]) -> Any:
    """submitit's executor, with its files in `folder`. Raises UserError for parameters that it refuses."""
    import submitit

    python = f"{shlex.quote(sys.executable)} -P"  # nothing is imported from the working directory
    try:
        executor = submitit.AutoExecutor(folder, cluster, **{f"{cluster}_python": python})
        executor.update_parameters(**parameters)
    except (NameError, ValueError, TypeError, AssertionError, RuntimeError) as error:
        raise UserError(f"--slurm: {str(error).splitlines()[0]}") from None
    return executor


@dataclass(frozen=True)
class Slot:
    """A Place for one job of submitit's `executor` of that `cluster`."""

    executor: Any
    cluster: str
    scratch: Path
    gpu: ClassVar[None] = None
    apart: ClassVar[bool] = True
    lasting: ClassVar[bool] = True

    def prepare(self, spec: RunSpec) -> None: ...

    def start(self, spec: RunSpec, arguments: Sequence[str], log: TextIO, claim: Claim) -> Process:
        """A new job, or the one of an earlier runner that is still in the queue."""
        submitted = self._queued(spec)
        if submitted is None:
            work = Work.of(spec, arguments, log, claim, self.scratch, child.changes_of(spec))
            self.executor.update_parameters(name=spec.run_id)
            submitted = self.executor.submit(work)
            note = {"job": submitted.job_id, "hash": spec.hash}
            write_text(self._note(spec), json.dumps(note))
        return Followed(_Job(submitted), events_of(spec, self.scratch), log)

    def _note(self, spec: RunSpec) -> Path:
        return self.scratch / f"{spec.run_id}.job"

    def _queued(self, spec: RunSpec) -> Any:
        """The job of this run that waits in SLURM's queue, as the note of an earlier runner names it."""
        import submitit

        try:
            note = json.loads(self._note(spec).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if self.cluster != "slurm" or note["hash"] != spec.hash:
            return None
        submitted: Any = submitit.SlurmJob(self.executor.folder, note["job"])
        return None if submitted.done(force_check=True) else submitted


@dataclass(frozen=True)
class _Job:
    """A Handle of submitit's `job`."""

    job: Any

    def ended(self) -> bool:
        return bool(self.job.done())

    def cancel(self) -> None:
        self.job.cancel(check=False)

    def result(self) -> int:
        return int(self.job.result())
