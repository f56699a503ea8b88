"""Files and folders that are there whole or not at all, and names that any file system takes."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def file_stem(*parts: str) -> str:
    """The parts joined by "_", each with "-" for what is not a letter, digit, ".", "+" or "-" of ASCII.

    No part begins or ends with "-" or ".": such a name would be hidden, or read as an option.
    """
    return "_".join(re.sub(r"[^A-Za-z0-9.+-]+", "-", part).strip("-.") for part in parts)


def free(path: Path) -> Path:
    """`path`, or where that is taken the first of <stem>.2, <stem>.3 and so on beside it that is not."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}.{number}{path.suffix}")
    return found


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, for the body to write a file to; the file then replaces `path`.

    A reader, or a crash, sees the old file or the new one, never a half. Where the body raises, the old file
    stays. The folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 in place of the file at `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def build_once(target: Path, fill: Callable[[Path], None]) -> Path:
    """Return the folder `target`, built by `fill(empty folder)` unless it is there already.

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
