"""Where a task's rows lie: the Hub, a mirror folder laid out like it, or the generated twin.

The source is chosen, recorded and never falls back by itself. A twin is a mirror whose content is generated.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmark.cache import cache_folder
from benchmark.errors import UserError
from tasks.base import TaskConfig
from tasks.dataset import Origin

if TYPE_CHECKING:
    from datasets import DatasetDict

ROOT_VARIABLE = "HIFT_DATA_ROOT"


class Read(NamedTuple):
    """A dataset as it lies in its source: a folder, or an id on the Hub and the commit read."""

    where: str
    splits: "DatasetDict"
    commit: str | None


def mirror_root() -> Path | None:
    """The folder that HIFT_DATA_ROOT (or --data-root, which sets it) names."""
    root = os.environ.get(ROOT_VARIABLE)
    return Path(root) if root else None


def check(task: TaskConfig, source: str) -> None:
    """Refuse, before anything runs, a mirror without the dataset or with a damaged file."""
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
    """The folder in the Hub's layout that holds the dataset. Raises UserError where it is not there."""
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
        there = sorted(str(p.relative_to(mirror)) for p in mirror.glob("*/*") if p.is_dir())
        raise UserError(
            f"{mirror}: has no dataset {origin.id}, which {task.name} needs; "
            f"it has {', '.join(there) or 'none'}"
        )
    return folder


def read_all(task: TaskConfig, source: str) -> dict[str, Read]:
    """What `read` gives for each role; a dataset that serves both is read once."""
    train, evaluation = task.dataset.origins.values()
    found = read(task, train, source)
    return {
        "train": found,
        "eval": found if evaluation is train else read(task, evaluation, source),
    }


def read(task: TaskConfig, origin: Origin, source: str) -> Read:
    """The whole dataset. Raises UserError where it cannot be read, or not at the commit that is pinned."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    if source == "hub":
        # the address, as a folder of the dataset's name in the current one would go before the Hub
        where, path, arguments = (
            origin.id,
            f"hf://datasets/{origin.id}",
            {"revision": origin.revision},
        )
    else:
        if source == "mirror":
            _check(task, origin)
        where = path = str(folder_of(task, origin, source).resolve())
        arguments = {"cache_dir": _cache_of(Path(path))}

    def prepared() -> tuple["DatasetDict", str]:
        builder = datasets.load_dataset_builder(path, origin.config, **arguments)
        builder.download_and_prepare()
        return builder.as_dataset(), str(builder.hash)

    try:
        try:
            found, commit = prepared()
        except Exception:
            if source == "hub":
                raise
            shutil.rmtree(arguments["cache_dir"], ignore_errors=True)  # it may be what is damaged
            found, commit = prepared()
    except Exception as error:  # whatever the reader's libraries raise, it is the data that is bad
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        hint = (
            "; no network? data: mirror with --data-root, or data: twin" if source == "hub" else ""
        )
        raise UserError(f"{where}: {task.name} cannot be read: {reason}{hint}") from error
    if source != "hub":
        return Read(where, found, None)
    if origin.pinned and commit != origin.revision:
        # without network, datasets takes the latest that is in its cache, of whatever commit
        raise UserError(
            f"{where}: {task.name} is pinned to commit {origin.revision}, and what can be read here, without "
            f"the Hub, is {commit}"
        )
    return Read(where, found, commit)


def _cache_of(folder: Path) -> str:
    """A cache for these very files: the key that datasets gives a local folder is its README's header, so
    it would serve the rows of another folder, or those a file held before it was put right."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stamps = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return str(cache_folder("datasets") / hashlib.sha256(repr(stamps).encode()).hexdigest()[:16])
