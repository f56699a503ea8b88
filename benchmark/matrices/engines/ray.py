"""Runs as tasks of Ray, on a cluster that is there or on one that starts on this machine with the runner.

Ray places each by its CPUs, GPUs and predicted host memory, and starts it again if its worker or node dies. A
task ends with its runner; the next runner lets the run go on from its checkpoint.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TextIO

from benchmark.errors import UserError
from benchmark.matrices import child
from benchmark.matrices.claims import Claim
from benchmark.matrices.engines.job import Followed, Work, events_of, make
from benchmark.matrices.engines.places import Engine
from benchmark.matrices.engines.workers import processors, threads_of
from benchmark.matrices.foreseen import Fault
from benchmark.matrices.processes import Process
from benchmark.matrices.room import Limits, Needs, Predict, too_large
from benchmark.records.spec import RunSpec
from benchmark.sizes import MIB, readable

JOBS = 64
"""Tasks at once on a cluster, waiting ones included, unless the user says otherwise."""
RESTARTS = 10
"""How often Ray starts a task again whose worker or node has died, unless the user says otherwise."""
ANSWER_S = 20
"""Seconds for which a cluster may take to answer."""
OURSELVES = {"RAY_task_oom_retries": str(RESTARTS)}  # Ray's own are without end
"""The variables of this process, unless the user sets them."""
HERE = {
    "RAY_raylet_start_wait_time_s": "120",  # 10 by itself, which a busy machine exceeds
    "RAY_worker_niceness": "0",  # 15 by itself, so that runs wait for all else
    "RAY_memory_monitor_refresh_ms": "0",  # which kills runs for what others take of the memory
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""The variables of a cluster of this machine, unless the user sets them."""
OBJECTS = 80 * MIB
"""Bytes for objects in a cluster of this machine, near the least that Ray takes: a run returns one number."""
OURS = ("HIFT_", "HF_", "PYTHON")
"""Beginnings of the variables that a run has from the runner's environment; the others are the node's."""
RESOURCES = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
"""The options of a task that ask for resources, and how Ray names these on a node."""


def engine(
    at_once: int | None, settings: Mapping[str, Any], predict: Predict
) -> tuple[Engine, Limits]:
    """At most `at_once` tasks at once, and what decides which runs the nodes can hold.

    settings: `address` of a cluster, as `ray.init` takes it, else that of RAY_ADDRESS; with neither a cluster
    starts on this machine, for one task at once by default. `include_dashboard` of such a cluster. Options of
    a task, as Ray names them, such as num_cpus and num_gpus. Raises UserError for others, without Ray, and
    for a cluster that does not answer.
    """
    os.environ.update({**OURSELVES, **os.environ})
    ray = _imported()
    options = dict(settings)
    address = str(options.pop("address", None) or os.environ.get("RAY_ADDRESS") or "local")
    is_local = address == "local"
    tasks = at_once or (1 if is_local else JOBS)
    cluster: dict[str, Any] = {"address": address}
    if is_local:
        cluster |= {"num_cpus": max(processors(), tasks), "object_store_memory": OBJECTS}
        cluster |= {"include_dashboard": options.pop("include_dashboard", None)}
        options = {"num_cpus": max(1, processors() // tasks), **options}
        os.environ.update({**HERE, **os.environ})
    else:
        _reach(address)
    options = {"num_cpus": 1, "max_retries": RESTARTS, **options}
    nodes = Nodes(ray, Needs(predict), options)
    nodes.check()

    @contextlib.contextmanager
    def opened(scratch: Path, note: Callable[[str], None]) -> Iterator[list[Slot]]:
        with _connected(ray, cluster) as dashboard:
            if dashboard:
                note(f"Ray's dashboard: http://{dashboard}")
            yield [Slot(nodes, scratch.resolve())] * tasks

    return opened, nodes


@dataclass
class Nodes:
    """Limits: what the nodes of a cluster have. When a run starts is left to Ray. options: of every task."""

    ray: Any
    needs: Needs
    options: Mapping[str, Any]

    def check(self) -> None:
        """Raises UserError for options that Ray refuses."""
        try:
            self.ray.remote(make).options(**self.options)
            self._wanted(self.options)
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"--ray: {_line(error)}") from None

    def fault(self, spec: RunSpec, gpu: str | None) -> Fault | None:
        wanted = self._wanted(self.options_of(spec))
        nodes = self._nodes()
        if any(_has(node, wanted) for node in nodes):
            return None
        beside = {name: amount for name, amount in wanted.items() if name != "memory"}
        memory = [node.get("memory", 0) for node in nodes if _has(node, beside)]
        if memory and "memory" not in self.options:
            return too_large(wanted["memory"], int(max(memory)), "host memory on one Ray node")
        asked = ", ".join(
            f"{readable(amount)} of memory" if name == "memory" else f"{amount:g} {name}"
            for name, amount in wanted.items()
        )
        return Fault("refused", f"not started: no node of the Ray cluster has {asked}")

    def fits(
        self, spec: RunSpec, gpu: str | None, running: Iterable[tuple[RunSpec, str | None]]
    ) -> bool:
        return True

    def options_of(self, spec: RunSpec) -> dict[str, Any]:
        """The options of the task that makes the run: a GPU where the cluster has one, and its predicted
        memory."""
        has_gpus = any(node.get("GPU", 0) >= 1 for node in self._nodes())
        gpus = self.options.get("num_gpus", spec.devices if has_gpus else 0)
        need = self.needs.of(spec, "cuda" if gpus else "cpu")
        return {"memory": need.host, **self.options, "num_gpus": gpus, "name": spec.run_id}

    def _nodes(self) -> list[Mapping[str, float]]:
        """The resources of each node, by Ray's names."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _wanted(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The resources that a task with these options asks for, by Ray's names."""
        wanted = {own: options[name] for name, own in RESOURCES.items() if options.get(name)}
        return wanted | dict(options.get("resources") or {})


@dataclass(frozen=True)
class Slot:
    """A Place for one task."""

    nodes: Nodes
    scratch: Path
    gpu: ClassVar[None] = None
    apart: ClassVar[bool] = True
    lasting: ClassVar[bool] = False

    def prepare(self, spec: RunSpec) -> None: ...

    def start(self, spec: RunSpec, arguments: Sequence[str], log: TextIO, claim: Claim) -> Process:
        ray, options = self.nodes.ray, self.nodes.options_of(spec)
        variables = {
            **{name: value for name, value in os.environ.items() if name.startswith(OURS)},
            **child.changes_of(spec),
            **threads_of(int(options["num_cpus"]), os.environ),
        }
        work = Work.of(spec, arguments, log, claim, self.scratch, variables)
        task = ray.remote(make).options(**options).remote(work)
        return Followed(_Task(ray, task), events_of(spec, self.scratch), log)


@dataclass(frozen=True)
class _Task:
    """A Handle of a task, by the reference to what it returns."""

    ray: Any
    reference: Any

    def ended(self) -> bool:
        return bool(self.ray.wait([self.reference], timeout=0)[0])

    def cancel(self) -> None:
        self.ray.cancel(self.reference, force=True)

    def result(self) -> int:
        return int(self.ray.get(self.reference))


def _has(node: Mapping[str, float], wanted: Mapping[str, float]) -> bool:
    return all(node.get(name, 0) >= amount for name, amount in wanted.items())


def _imported() -> Any:
    """Ray. Its import leaves SIGTERM to this program. Raises UserError without it."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray needs Ray: pip install 'hift-benchmark[ray]'") from None
    finally:
        signal.signal(signal.SIGTERM, handler)
    return ray


def _reach(address: str) -> None:
    """Raise UserError if no cluster answers: a process that connects to none would hang or abort."""
    if address.startswith("ray://"):
        raise UserError(
            f"--engine ray: {address} is that of Ray's client; run it on a node, with --ray address=auto"
        )
    command = [sys.executable, "-P", "-m", "ray.scripts.scripts", "health-check"]
    named = [] if address == "auto" else ["--address", address]
    try:
        done = subprocess.run([*command, *named], capture_output=True, timeout=ANSWER_S)
    except subprocess.TimeoutExpired:
        answers = False
    else:
        answers = done.returncode == 0
    if not answers:
        raise UserError(
            f"--engine ray: no Ray cluster of this version answers at {address}; without RAY_ADDRESS and "
            "--ray address one starts here"
        )


@contextlib.contextmanager
def _connected(ray: Any, cluster: Mapping[str, Any]) -> Iterator[str | None]:
    """Context with a cluster to submit tasks to; yields the address of its dashboard, if there is one."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        context = ray.init(log_to_driver=False, logging_level=logging.ERROR, **cluster)
    except Exception as error:  # of many kinds: what the start of several processes may fail with
        ray.shutdown()
        raise UserError(f"--engine ray: {_line(error)}") from None
    finally:
        signal.signal(signal.SIGTERM, handler)
    try:
        yield context.dashboard_url or None
    finally:
        ray.shutdown()


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
