"""Names that become files: that of a matrix, those of its strategies, and the run ids made of them.

Each check raises UserError, in one line that begins with the matrix file.
"""

import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmark.errors import UserError
from benchmark.records.folders import Folder

LONGEST = 100
"""Characters of a matrix's or strategy's name."""
LONGEST_RUN_ID = 200
"""Bytes of a run id. A file name has up to 255, and the files of a run add to it."""


def of_matrix(name: Any, path: Path) -> str:
    """`name`, which becomes that of the folders of the matrix."""
    plain = isinstance(name, str) and name.replace("_", "").replace("-", "")
    if not plain or not plain.isalnum() or len(name) > LONGEST:
        known = f"is not a name of 1 to {LONGEST} letters, digits, - and _"
        raise UserError(f"{path}: name: {reprlib.repr(name)} {known}")
    if name.casefold() in {*Folder} and path.resolve().parent != Path(__file__).parent:
        taken = ", ".join(Folder)
        raise UserError(f"{path}: name: {name} is a folder of the suite itself (taken: {taken})")
    return str(name)


def check_label(label: str, path: Path) -> None:
    """Refuse a strategy's name that is blank, too long or not printable."""
    if not label.strip() or len(label) > LONGEST or not label.isprintable():
        known = f"is not a name of 1 to {LONGEST} printable characters"
        raise UserError(f"{path}: strategies: {reprlib.repr(label)} {known}")


def check_own_task(entry: str, stem: str, path: Path) -> None:
    """Refuse a task's file whose name, without its suffix, is blank, too long or not printable."""
    if not stem.strip(" .") or len(stem) > LONGEST or not stem.isprintable():
        known = f"is not a file with a name of 1 to {LONGEST} printable characters"
        raise UserError(f"{path}: tasks: {reprlib.repr(entry)} {known}")


def check_run_ids(run_ids: Iterable[str], path: Path) -> None:
    """Refuse a run id that is no file name, or the file name of another."""
    seen: set[str] = set()
    for run_id in run_ids:
        if len(run_id) > LONGEST_RUN_ID:
            raise UserError(
                f"{path}: the run id {reprlib.repr(run_id)} has {len(run_id)} characters, too many for a "
                "file name: shorten the strategy's name or the model's path"
            )
        if run_id.casefold() in seen:  # some file systems do not tell A from a
            raise UserError(
                f"{path}: two cells would share the run id {run_id}; rename one strategy"
            )
        seen.add(run_id.casefold())
