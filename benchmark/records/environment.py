"""What a run ran on: machine, library versions, and the commit of this project, as plain JSON values."""

import functools
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PACKAGES = (
    *("torch", "transformers", "datasets", "evaluate", "lightning", "peft", "mlflow", "numpy"),
    *("scikit-learn", "sacrebleu"),  # metrics
)
ROOT = Path(__file__).resolve().parents[2]
DEVICES, NVIDIA = Path("/dev"), Path("/proc/driver/nvidia/gpus")


def environment(more: Iterable[str] = ()) -> dict[str, Any]:
    """Versions, processor, threads and device of this process (imports torch). `more`: packages whose version
    counts beside PACKAGES, such as the one that a model came from."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": _cpuinfo("model name") or platform.processor() or "unknown",
        "cpu_kind": cpu_kind(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cuda": torch.version.cuda if cuda else None,
        "accelerators": accelerators(),
        "packages": {name: importlib.metadata.version(name) for name in (*PACKAGES, *more)},
    }


def accelerators() -> list[str]:
    """What the system shows of accelerators, found in milliseconds and without torch: the names that NVIDIA's
    driver gives its GPUs, device files of other kinds, and the variable that hides GPUs where it is set.

    Not whether torch can use them: that needs torch. It is here to be compared with itself.
    """
    found = []
    for file in sorted(NVIDIA.glob("*/information")):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    for pattern in ("nvidia[0-9]*", "kfd", "dxg"):
        found += sorted(str(file) for file in DEVICES.glob(pattern))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if visible is None else [*found, f"CUDA_VISIBLE_DEVICES={visible}"]


def same(recorded: dict[str, Any]) -> bool:
    """Whether `recorded`, a record's environment, is this machine's in what can make a run unsupported: the
    accelerators, and the versions of the packages that it names. Imports no torch.

    A record that does not name its accelerators (an older one) is of another machine. What this cannot see
    is a driver that broke or was mended, and a change of this project's code.
    """
    packages = recorded.get("packages", {})
    return recorded.get("accelerators") == accelerators() and packages == _versions(packages)


def _versions(names: Iterable[str]) -> dict[str, str | None]:
    """The installed version of each package, None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def process_started() -> float:
    """When this process began, in seconds since the epoch, the interpreter's own start included."""
    import psutil

    return psutil.Process().create_time()


def cpu_kind() -> str:
    """What decides which kernels run and so how they round: vendor, family, model, instruction set."""
    import torch

    found = [_cpuinfo(key) for key in ("vendor_id", "cpu family", "model")]
    return " ".join([*filter(None, found), torch.backends.cpu.get_cpu_capability()])


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
    """This project's version, and where it is a git checkout its commit and whether it has changes.

    Files under results/ and reports/ are what runs write, so they do not make the code dirty.
    """
    found: dict[str, Any] = {
        "version": importlib.metadata.version("hift-benchmark"),
        "git_sha": None,
        "dirty": None,
    }
    sha = _git("rev-parse", "HEAD")
    if sha is not None and _git("rev-parse", "--show-toplevel") == str(ROOT):
        changed = _git("status", "--porcelain", "--", ".", ":!results", ":!reports")
        found |= {"git_sha": sha, "dirty": bool(changed)}
    return found


def _git(*arguments: str) -> str | None:
    """Output of a git command in this project's folder; None where git or a repository is missing."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
