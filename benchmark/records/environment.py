"""The environment of a run as JSON values: machine, library versions, and the commit of this project."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PACKAGES = (
    *("torch", "transformers", "datasets", "evaluate", "lightning", "peft", "mlflow", "numpy"),
    *("scikit-learn", "sacrebleu"),  # metrics
)
ROOT = Path(__file__).resolve().parents[2]
DEVICES, NVIDIA = Path("/dev"), Path("/proc/driver/nvidia/gpus")

version = functools.cache(importlib.metadata.version)  # which parses the package's description


def environment(more: Iterable[str] = ()) -> dict[str, Any]:
    """`machine`, and what torch says: threads, device and kind of processor of this process. Imports torch.

    `more` names packages to record besides PACKAGES, such as the one that holds the model's weights.
    """
    import torch

    cuda = torch.cuda.is_available()
    return machine(more) | {
        "cpu_kind": cpu_kind(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cuda": torch.version.cuda if cuda else None,
    }


def machine(more: Iterable[str] = ()) -> dict[str, Any]:
    """System, processor, accelerators and library versions, read without torch: a runner that is told to stop
    has seconds to write a record, and importing torch takes as long."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": _cpuinfo("model name") or platform.processor() or "unknown",
        "cores": os.cpu_count(),
        "accelerators": accelerators(),
        "packages": {name: version(name) for name in (*PACKAGES, *more)},
    }


def accelerators() -> list[str]:
    """The accelerators that the operating system shows, read in milliseconds and without torch.

    The list has the GPU names of NVIDIA's driver, the device files of accelerators, and
    CUDA_VISIBLE_DEVICES where it is set. It does not say whether torch can use them; `same` compares it with
    the list in a record.
    """
    names = []
    for file in sorted(NVIDIA.glob("*/information")):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    for pattern in ("nvidia[0-9]*", "kfd", "dxg"):
        names += sorted(str(file) for file in DEVICES.glob(pattern))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names if visible is None else [*names, f"CUDA_VISIBLE_DEVICES={visible}"]


def same(recorded: dict[str, Any]) -> bool:
    """Whether an unsupported run would be unsupported here again: `recorded` (the environment in its record)
    has this machine's accelerators, and its package versions are those installed. Imports no torch.

    False for an older record without accelerators. A changed driver and a change of this project's code are
    not detected.
    """
    packages = recorded.get("packages", {})
    return recorded.get("accelerators") == accelerators() and packages == _versions(packages)


def _versions(names: Iterable[str]) -> dict[str, str | None]:
    """The installed version of each package, None for one that is not installed."""
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def process_started() -> float:
    """When the operating system started this process, in seconds since the epoch, to a hundredth of a second.

    psutil's time is counted from the second in which Linux booted, so it is up to one second too early.
    """
    if sys.platform != "linux":
        import psutil

        return psutil.Process().create_time()
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)


def cpu_kind() -> str:
    """Vendor, family, model and instruction set of the processor. Kernels and their rounding depend on them.

    Imports torch.
    """
    import torch

    names = [_cpuinfo(key) for key in ("vendor_id", "cpu family", "model")]
    return " ".join([*filter(None, names), torch.backends.cpu.get_cpu_capability()])


def _cpuinfo(key: str) -> str | None:
    """The first processor's value of `key` in /proc/cpuinfo; None where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() == key), None)


@functools.cache
def code() -> dict[str, Any]:
    """The version of this project, its git commit, and whether the checkout has changes (`dirty`).

    Commit and `dirty` are None outside a git checkout. Changes under results/ and reports/ do not count,
    because runs write there.
    """
    state: dict[str, Any] = {
        "version": importlib.metadata.version("hift-benchmark"),
        "git_sha": None,
        "dirty": None,
    }
    sha = _git("rev-parse", "HEAD")
    if sha is not None and _git("rev-parse", "--show-toplevel") == str(ROOT):
        changed = _git("status", "--porcelain", "--", ".", ":!results", ":!reports")
        state |= {"git_sha": sha, "dirty": bool(changed)}
    return state


@functools.cache
def sources() -> str:
    """A hash of this project's Python files. Code with other changes, committed or not, has another one."""
    digest = hashlib.sha256()
    for package in ("benchmark", "tasks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _git(*arguments: str) -> str | None:
    """Output of a git command in this project's folder; None where git fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
