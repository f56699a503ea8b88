"""What the files of a mirror, a twin or the user's own say before a run: columns and numbers of rows.

`check` refuses before a run starts what the run would refuse after its libraries are loaded. It says nothing
of data on the Hub, or of files that cannot be told to belong to a split by their names.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from benchmark.cache import cache_folder
from benchmark.data import drawing, hub_cache, own_files, sources, splits
from benchmark.data.settings import DataSettings
from benchmark.errors import UserError
from benchmark.twin import data as twin
from tasks.base import TaskConfig
from tasks.dataset import Origin


def check(task: TaskConfig, settings: DataSettings) -> None:
    """Raises UserError for missing columns, and for more rows than there are."""
    drawing.check_shots(settings, task)
    if task.dataset.files:
        _check_own(task, settings)
        return
    for role, origin in task.dataset.origins.items():
        folder = _folder(origin, settings.data)
        name = splits.name(task.dataset, role)
        found = folder and _read(sorted(folder.glob(f"{origin.config}/{name}-*.parquet")))
        if not found:
            continue
        columns, rows = found
        _check_columns(task, columns, str(folder))
        # the examples of a language model task are parts of rows
        if role == "train" and not task.dataset.shots and task.adapter != "language_model":
            drawing.check_enough(settings, task, rows, str(folder))


def rows(task: TaskConfig, source: str, role: str) -> int | None:
    """The number of rows of the role's split (`train` or `eval`), if its files are here; None if they are
    missing or damaged."""
    if task.dataset.files:
        return _own_rows(task, role)
    origin, name = task.dataset.origins[role], splits.name(task.dataset, role)
    if source == "hub":
        return hub_cache.rows(origin, name)
    folder = _folder(origin, source)
    found = folder and _read(sorted(folder.glob(f"{origin.config}/{name}-*.parquet")))
    return found[1] if found else None


def _own_rows(task: TaskConfig, role: str) -> int | None:
    """Where no file is given for `eval`, its rows are held out of those of train."""
    try:
        if role == "train":
            return own_files.train_rows(task)
        files = task.dataset.files
        total = own_files.contents(Path(files.get("eval", files["train"]))).rows
        return total if "eval" in files else total - own_files.train_rows(task)
    except UserError:  # `check` says so
        return None


def _check_own(task: TaskConfig, settings: DataSettings) -> None:
    """The same for the user's own files, and for one that is damaged. Missing ones: `sources.check`."""
    if not all(Path(file).is_file() for file in task.dataset.files.values()):
        return
    for file in task.dataset.files.values():
        _check_columns(task, own_files.contents(Path(file)).columns, file)
    if not task.dataset.shots and task.adapter != "language_model":
        rows = own_files.train_rows(task)
        drawing.check_enough(settings, task, rows, task.dataset.files["train"])


def _check_columns(task: TaskConfig, columns: Sequence[str], where: str) -> None:
    for column in _needed(task):
        if column.partition(".")[0] not in columns:
            raise UserError(
                f"{where}: {task.name}: column {column} is missing; the data has {', '.join(columns)}"
            )


def _needed(task: TaskConfig) -> list[str]:
    """The columns of the input and of the label."""
    label = getattr(task, "label", None)
    return [*task.input_columns, *([label] if label else [])]


def _folder(origin: Origin, source: str) -> Path | None:
    """The folder of the dataset; None for the Hub, and for what is not here or not built yet."""
    if source == "hub":
        return None
    root = cache_folder(f"twin-data-{twin.VERSION}") if source == "twin" else sources.mirror_root()
    return (root / origin.id).resolve() if root and (root / origin.id).is_dir() else None


def _read(files: list[Path]) -> tuple[list[str], int] | None:
    """The columns of the files of a split, and the number of rows in all; None if one is damaged."""
    import pyarrow

    if not files:
        return None
    try:
        footers = [_footer(path, (s := path.stat()).st_size, s.st_mtime_ns) for path in files]
    except (OSError, pyarrow.ArrowException):  # `sources.check` says so
        return None
    return footers[0][0], sum(rows for _, rows in footers)


@functools.lru_cache(maxsize=1024)
def _footer(path: Path, size: int, changed: int) -> tuple[list[str], int]:
    """The columns and the number of rows of the file, which had this size and time of change."""
    import pyarrow.parquet

    footer = pyarrow.parquet.read_metadata(path)
    return footer.schema.to_arrow_schema().names, footer.num_rows
