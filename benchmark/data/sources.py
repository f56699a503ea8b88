"""Reads a task's datasets from one of four sources: the Hub, a mirror folder, the generated twin, or files.

A mirror has the folder layout of the Hub. A twin is a mirror with generated content. Files are those that a
task of the user's own names. The user chooses the source and the record names it. There is no automatic
fallback to another source.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmark.cache import cache_folder
from benchmark.data import own_files
from benchmark.errors import UserError
from tasks.base import TaskConfig
from tasks.dataset import UNPINNED, Origin

if TYPE_CHECKING:
    from datasets import DatasetDict

ROOT_VARIABLE = "HIFT_DATA_ROOT"


class Read(NamedTuple):
    """A dataset that was read. `where`: its folder or file, or its id on the Hub.

    `commit`: None for a folder, UNPINNED for a file of the user's own.
    """

    where: str
    splits: "DatasetDict"
    commit: str | None


def mirror_root() -> Path | None:
    """The folder in HIFT_DATA_ROOT, which --data-root sets; None if it is not set."""
    root = os.environ.get(ROOT_VARIABLE)
    return Path(root) if root else None


def check(task: TaskConfig, source: str) -> None:
    """Raises UserError for a mirror that lacks the task's dataset or holds a damaged file, and for a file of
    the user's own that is missing or damaged."""
    for file in task.dataset.files.values():
        own_files.contents(Path(file))
    if source != "mirror":
        return
    for origin in task.dataset.origins.values():
        _check(task, origin)


def _check(task: TaskConfig, origin: Origin) -> None:
    folder = folder_of(task, origin, "mirror")
    files = sorted(folder.glob(f"{origin.config}/**/*.parquet"))
    if not files:
        raise UserError(f"{folder}: no parquet files of config {origin.config} for {task.name}")
    for path in files:
        with open(path, "rb") as file:
            head = file.read(4)
            file.seek(-min(4, path.stat().st_size), os.SEEK_END)
            if head != b"PAR1" or file.read(4) != b"PAR1":
                raise UserError(f"{path}: damaged or cut short: not a whole parquet file")


def folder_of(task: TaskConfig, origin: Origin, source: str) -> Path:
    """The folder of the dataset in a mirror or twin. Builds a twin that does not exist yet.

    Raises UserError if there is no mirror, or if it has no such dataset.
    """
    if source == "twin":
        from benchmark.twin import data as twin

        root = cache_folder(f"twin-data-{twin.VERSION}")
        return twin.build(origin.id, origin.config, root)
    mirror = mirror_root()
    if mirror is None:
        raise UserError(
            f"{task.name}: data: mirror needs a folder laid out like the Hub: --data-root or {ROOT_VARIABLE}"
        )
    folder = mirror / origin.id
    if not folder.is_dir():
        available = sorted(str(p.relative_to(mirror)) for p in mirror.glob("*/*") if p.is_dir())
        raise UserError(
            f"{mirror}: has no dataset {origin.id}, which {task.name} needs; "
            f"it has {', '.join(available) or 'none'}"
        )
    return folder


def read_all(task: TaskConfig, source: str) -> dict[str, Read]:
    """The dataset of each role ("train", "eval"). One dataset that has both roles is read once."""
    if task.dataset.files:
        return _own(task)
    train, evaluation = task.dataset.origins.values()
    train_read = read(task, train, source)
    return {
        "train": train_read,
        "eval": train_read if evaluation is train else read(task, evaluation, source),
    }


def _own(task: TaskConfig) -> dict[str, Read]:
    """The files of the user's own, each as the one split of its name."""
    from datasets import DatasetDict

    reads = {}
    for role, file in task.dataset.files.items():
        rows = own_files.read(Path(file), Path(_cache_of([Path(file).resolve()])))
        reads[role] = Read(file, DatasetDict({role: rows}), UNPINNED)
    return {"eval": reads["train"], **reads}


def read(task: TaskConfig, origin: Origin, source: str) -> Read:
    """Read all splits of a dataset. Raises UserError if it cannot be read, or not at its pinned commit."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    if source == "hub":
        # an hf:// address: with the id alone, datasets prefers a local folder of that name
        where, path, arguments = (
            origin.id,
            f"hf://datasets/{origin.id}",
            {"revision": origin.revision},
        )
    else:
        if source == "mirror":
            _check(task, origin)
        where = path = str(folder_of(task, origin, source).resolve())
        arguments = {"cache_dir": _cache_of(Path(path).rglob("*"))}

    def prepared() -> tuple["DatasetDict", str]:
        builder = datasets.load_dataset_builder(path, origin.config, **arguments)
        builder.download_and_prepare()
        return builder.as_dataset(), str(builder.hash)

    try:
        try:
            splits, commit = prepared()
        except Exception:
            if source == "hub":
                raise
            shutil.rmtree(arguments["cache_dir"], ignore_errors=True)  # the cache may be damaged
            splits, commit = prepared()
    except Exception as error:  # the libraries raise many types for unreadable data
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        hint = (
            "; no network? data: mirror with --data-root, or data: twin" if source == "hub" else ""
        )
        raise UserError(f"{where}: {task.name} cannot be read: {reason}{hint}") from error
    if source != "hub":
        return Read(where, splits, None)
    if origin.pinned and commit != origin.revision:
        # without network, datasets uses the latest version in its cache, whatever its commit
        raise UserError(
            f"{where}: {task.name} is pinned to commit {origin.revision}, and what can be read here, without "
            f"the Hub, is {commit}"
        )
    return Read(where, splits, commit)


def _cache_of(paths: Iterable[Path]) -> str:
    """The cache folder for the files among `paths`, with a key made of their paths, sizes and times.

    The library's own key for a local folder is the header of its README. With that key it would return
    cached rows of another folder, or of an older version of a file.
    """
    files = sorted(path for path in paths if path.is_file())
    stamps = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return str(cache_folder("datasets") / hashlib.sha256(repr(stamps).encode()).hexdigest()[:16])
