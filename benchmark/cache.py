"""Folders that can be built again ($HIFT_CACHE, else ~/.cache/hift-benchmark)."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """The folder `name` in the cache (not made here)."""
    root = os.environ.get("HIFT_CACHE") or Path.home() / ".cache" / "hift-benchmark"
    return Path(root).expanduser() / name
