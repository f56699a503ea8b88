"""Writes files and folders whole or not at all, and builds names that every file system accepts."""

import contextlib
import functools
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def file_stem(*parts: str) -> str:
    """The parts joined by "_". Characters other than ASCII letters, digits, ".", "+" and "-" become "-".

    No part begins or ends with "-" or ".", so the file is neither hidden nor read as an option. A part that
    loses all its characters, or any that are not ASCII, ends with a hash, by which two of them differ.
    """
    return "_".join(map(_plain, parts))


@functools.lru_cache(1 << 16)
def _plain(part: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9.+-]+", "-", part).strip("-.")
    if plain and part.isascii():
        return plain
    digest = hashlib.sha256(part.encode()).hexdigest()[:8]
    return f"{plain}-{digest}".lstrip("-")


def free(path: Path) -> Path:
    """`path` if no file is there, else the first of <stem>.2, <stem>.3 and so on that does not exist."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}.{number}{path.suffix}")
    return candidate


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`. The file that the body writes there then replaces `path`.

    Readers see the old file or the new one, even after a crash. If the body raises, the old file stays. A
    missing folder is created. An OSError, such as that of a full disk, names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all. It replaces a file that is there."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size in bytes and time of change of the files directly in `folder`: what is known of them holds
    as long as it is the same."""
    statuses = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in statuses)


ROOM = 1 << 20
"""Bytes that must be free where results are written: a record, a curve and predictions."""


def check_room(folder: Path) -> None:
    """Raises OSError, naming `folder`, if it cannot be made, nothing can be written there, or ROOM bytes
    cannot: whoever is about to work for hours asks first."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM))
            file.flush()
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(folder)) from error


def build_once(target: Path, fill: Callable[[Path], None]) -> Path:
    """Return the folder `target`. If it does not exist, `fill` builds it.

    `fill` gets an empty temporary folder beside `target`, which is renamed to `target` once `fill` returns.
    So a reader never sees half a folder, and a killed build leaves no `target`. If two processes build at
    once, the first one's folder stays and the other's is deleted; `fill` must therefore be deterministic.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        scratch.chmod(0o755)  # mkdtemp's 0700 would lock other users out of a shared cache
        fill(scratch)
        try:
            os.rename(scratch, target)
        except OSError:  # another process was first: rename does not replace a non-empty folder
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target
