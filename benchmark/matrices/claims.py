"""Claims: at most one process at a time works on a run, whichever runner started it.

A claim is a lock of the kernel (flock(2)) on a file. The runner takes it, and the process of the run holds it
too, so it ends when both have ended, however they end: no claim outlives its holders, and a run of a runner
that was killed is free once its own process is gone. On NFS the server keeps the lock, for all hosts.
"""

import errno
import os
from pathlib import Path

from benchmark.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class Claim:
    """A claim of this process. `file`: the descriptor that another one has to inherit to hold it too."""

    def __init__(self, path: Path, file: int) -> None:
        self.path, self.file = path, file

    def release(self) -> None:
        """Give the claim up. The processes that inherited it must have ended."""
        self.path.unlink(missing_ok=True)
        os.close(self.file)


def take(path: Path) -> Claim | None:
    """Claim what the lock file `path` stands for; None if another claim holds it.

    Raises UserError where the file system knows no locks.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise UserError(
                f"{path}: this file system has no locks ({error.strerror}); keep results on another one"
            ) from None
        if _is_at(path, file):
            return Claim(path, file)
        os.close(file)  # its last holder has removed it


def _is_at(path: Path, file: int) -> bool:
    """Whether `path` is the file that is open as `file`."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False
