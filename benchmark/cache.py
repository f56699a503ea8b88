"""Folders that can be built again ($HIFT_CACHE, else ~/.cache/hift-benchmark).

A folder is there whole or not at all, also when several processes build it at once.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder(name: str) -> Path:
    """The folder `name` in the cache (not made here)."""
    root = os.environ.get("HIFT_CACHE") or Path.home() / ".cache" / "hift-benchmark"
    return Path(root).expanduser() / name


def build_once(target: Path, fill: Callable[[Path], None]) -> Path:
    """Return `target`, built by `fill(empty folder)` unless it is there already.

    `fill` works in a temporary folder beside `target` that is renamed into place when it is whole, so
    a reader never sees half of it and a killed build leaves `target` absent. Of two builders at once
    the first to finish wins; `fill` must be deterministic, so the loser's copy is dropped.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        scratch.chmod(0o755)  # mkdtemp's 0700 would hide a shared cache from its other users
        fill(scratch)
        try:
            os.rename(scratch, target)
        except OSError:  # another process was first: a non-empty folder is never renamed over
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target
