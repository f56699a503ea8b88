"""The cache: folders that can be rebuilt. They are in $HIFT_CACHE, or in ~/.cache/hift-benchmark."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """The path of the folder `name` in the cache. It is not created here."""
    root = os.environ.get("HIFT_CACHE") or Path.home() / ".cache" / "hift-benchmark"
    return Path(root).expanduser() / name
