"""Measured peak memory: the step that `simulate` predicts, run in a process of its own, and its record.

On a CUDA device the peaks are the allocator's, by phase, with `reserved` beside them. On a CPU they are
counted tensor bytes (LiveBytes), with the process's resident memory beside them. Two sweeps are run, and the
second is measured; without groups that take turns, both steps are. A record is a JSON file named by the
setting and its hash; none is overwritten.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmark.errors import UserError
from benchmark.files import file_stem, free, write_text
from benchmark.lifetime import end_with
from benchmark.memory.setting import Setting
from benchmark.records import environment
from benchmark.sizes import GIB

if TYPE_CHECKING:
    from benchmark.memory.simulate import Peak

SCHEMA_VERSION = 1
LIBRARIES = GIB
"""An upper bound of the bytes that Python and the libraries take in the measuring process."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All sizes are bytes. phases: the peaks of forward, backward and step over a sweep. load_peak: the peak
    of moving the model to the device and building the optimizer. peak: the largest of these, None if memory
    ran out. predicted: the simulated peak for the same kind of device. rss: peak resident memory of the
    process. group_size: m, if the method has one."""

    setting: dict[str, Any]
    setting_hash: str
    status: Literal["success", "oom"]
    kind: Literal["cuda", "counted_cpu_tensors"]
    device: str
    predicted: int
    peak: int | None
    phases: dict[str, int]
    reserved: int | None
    rss: int
    environment: dict[str, Any]
    code: dict[str, Any]
    load_peak: int | None = None
    group_size: int | None = None
    schema_version: int = field(default=SCHEMA_VERSION)

    @property
    def error_percent(self) -> float | None:
        """Predicted over measured peak, minus 1, in percent; None if memory ran out."""
        return None if self.peak is None else 100 * (self.predicted / self.peak - 1)


def measure(setting: Setting, folder: Path, say: Callable[[str], None]) -> Measured:
    """Predict, run and record one setting, on the CUDA device if there is one.

    Raises UserError, before anything runs, if this host has too little memory.
    """
    import torch

    from benchmark.memory import simulate

    cuda = torch.cuda.is_available()
    if setting.precision == "fp16" and not cuda:
        raise UserError(
            "fp16 needs a CUDA device; a CPU trains in fp32, bf16, bf16_weights or mixed_hi"
        )
    predicted = simulate.peak(setting, device="cuda" if cuda else "cpu")
    host = max(predicted.host, _loading(setting, predicted))
    _check_host(setting, host if cuda else predicted.host + predicted.total)
    say(f"{setting.model}, {setting.strategy}: two sweeps of {predicted.groups} groups")
    argument = json.dumps(dataclasses.asdict(setting))
    child = subprocess.run(
        [sys.executable, "-P", "-m", "benchmark.memory.measured", argument, str(os.getpid())],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if child.returncode:
        raise UserError(f"the process that measures ended with status {child.returncode}")
    record = Measured(
        setting=dataclasses.asdict(setting),
        setting_hash=setting.hash,
        predicted=predicted.total,
        group_size=setting.group_size,
        environment=environment.environment(),
        code=environment.code(),
        **json.loads(child.stdout.splitlines()[-1]),
    )
    text = json.dumps(dataclasses.asdict(record), indent=2, sort_keys=True, allow_nan=False)
    path = free(folder / _file(setting))
    write_text(path, text + "\n")
    say(f"record: {path}")
    return record


def _loading(setting: Setting, predicted: "Peak") -> int:
    """Bytes of host memory that the model takes before it moves.

    The bf16 weights lie beside the fp32 masters there, and without masters take the place of the fp32 ones.
    """
    times = {"mixed": 3, "mixed_hi": 3, "bf16_weights": 2}
    return predicted.parameters * times.get(setting.precision, 1)


def _check_host(setting: Setting, needed: int) -> None:
    import psutil

    available = psutil.virtual_memory().available
    if needed + LIBRARIES > available:
        raise UserError(
            f"model {setting.model}: the step needs {needed / GIB:.1f} GiB of this host's memory and "
            f"{available / GIB:.1f} GiB are free"
        )


def _file(setting: Setting) -> str:
    """The file name of the first record of `setting`; further ones get a number."""
    parts = [setting.model, setting.strategy, setting.optimizer, setting.precision]
    parts += [f"{setting.batch_size}x{setting.seq_len}", setting.hash]
    return f"{file_stem(*parts)}.json"


def _run(setting: Setting) -> dict[str, Any]:
    """The measured fields of the record. Runs in the child process."""
    import torch

    from benchmark.measure.peaks import host_rss_peak
    from benchmark.memory.training import Training

    cuda = torch.cuda.is_available()
    torch.manual_seed(0)
    phases = {"forward": 0, "backward": 0, "step": 0}
    status, load_peak = "success", None
    try:
        training = Training(setting, "cuda" if cuda else "cpu")
        load_peak = training.load_peak
        schedule = getattr(getattr(training.optimizer, "plan", None), "schedule", None)
        sweep = schedule.sweep_steps if schedule else 1
        for _ in range(sweep if schedule else 0):
            training.step()
        for _ in range(sweep if schedule else 2):
            peaks = _cuda_step(training) if cuda else _cpu_step(training)
            phases = {name: max(size, peaks[name]) for name, size in phases.items()}
    except torch.OutOfMemoryError:
        status, phases = "oom", {}
    return {
        "status": status,
        "kind": "cuda" if cuda else "counted_cpu_tensors",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "peak": max([load_peak or 0, *phases.values()]) if phases else None,
        "phases": phases,
        "load_peak": load_peak,
        "reserved": torch.cuda.max_memory_reserved() if cuda else None,
        "rss": host_rss_peak(),
    }


def _phases(training: Any, peak: Callable[[], int]) -> dict[str, int]:
    """One step; after each phase of it, what `peak` says of the bytes since it was asked last."""
    loss = training.forward()
    seen = {"forward": peak()}
    training.backward(loss)
    seen["backward"] = peak()
    training.update()
    return seen | {"step": peak()}


def _cuda_step(training: Any) -> dict[str, int]:
    import torch

    def peak() -> int:
        torch.cuda.synchronize()
        most = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return most

    peak()
    return _phases(training, peak)


def _cpu_step(training: Any) -> dict[str, int]:
    from benchmark.measure.live_bytes import LiveBytes
    from benchmark.measure.optimizer_state import state_bytes, state_tensors
    from benchmark.measure.weights import device_weights, host_weights

    model, held = training.model, state_bytes(training.optimizer)["device"]
    counter = LiveBytes(
        [*device_weights(model), *training.batch.values()],
        counted_elsewhere=[*state_tensors(training.optimizer), *host_weights(model)],
        base=held["optimizer_state"] + held["master"],
    )

    def peak() -> int:
        most, counter.peak = counter.peak, counter.live
        return most

    with counter:
        return _phases(training, peak)


if __name__ == "__main__":
    end_with(int(sys.argv[2]))
    print(json.dumps(_run(Setting(**json.loads(sys.argv[1])))))
