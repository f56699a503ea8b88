"""Tasks of the user's own: a YAML file anywhere, with rows in files beside it. Imports no torch.

Such a task has the keys of a shipped one, but `data` in place of `dataset`, and neither `version` nor `card`.
It is named `own/<stem of its file>`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks import base, includes
from tasks.base import TaskConfig, TaskError
from tasks.dataset import HELD_OUT, REST, UNKNOWN, UNPINNED, Data
from tasks.names import complaint

SUFFIXES = (".yaml", ".yml")
FORMATS = {".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
"""Suffix of a file of rows -> the builder of the library `datasets` that reads it."""
DEFAULTS: dict[str, Any] = {
    "version": 1,
    "card": {"paper": "none", "reference": "none", "checked": "nothing: the user's own task"},
}
"""What a task of the user's own need not say."""


def is_file(entry: str) -> bool:
    """Whether the entry of a matrix is the file of a task, and not the name of a shipped one."""
    return entry.endswith(SUFFIXES)


def name(path: Path) -> str:
    """The name of the task in the file."""
    return f"own/{path.stem}"


def of(task: str, file: str | None) -> TaskConfig:
    """The configuration of a task: of the user's own in `file`, or if that is None the shipped one."""
    return base.load(task) if file is None else load(Path(file))


def load(path: Path) -> TaskConfig:
    """The configuration in a task's file. Its data files need not exist.

    Raises TaskError that names the file and the wrong key.
    """
    try:
        chain = includes.layers(path, base.CONFIGS, base.names())
    except OSError as error:
        raise TaskError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:
        raise TaskError(str(error)) from None
    content = includes.merged(chain)
    _fill_in_template(path, content)
    data = content.pop("data", None)
    if data is not None:
        inherited = len(chain) > 1 and "dataset" not in chain[0].content
        if "dataset" in content and not inherited:
            raise TaskError(f"{path}: gives data and dataset: choose one")
        content["dataset"] = _dataset(path, data)
    elif isinstance(content.get("dataset"), dict):
        content["dataset"] = {
            **{"config": "default", "revision": "main"},
            **{"sizes": UNKNOWN, **content["dataset"]},
        }
    try:
        return base.parse(
            name(path),
            {**DEFAULTS, **content},
            lambda keys: str(includes.source(chain, keys)),
            also=("data",),
        )
    except TaskError as error:
        if "dataset" in content or not str(error).startswith(f"{path}: dataset:"):
            raise
        raise TaskError(f"{path}: data: missing: the files, as data: {{train: my.jsonl}}") from None


def _fill_in_template(path: Path, content: dict[str, Any]) -> None:
    """Put the text of a file in Jinja in the place of its name, in the key `template`."""
    template = content.get("template")
    if isinstance(template, str) and template.endswith(".jinja"):
        try:
            content["template"] = (path.parent / template).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise TaskError(f"{path}: template: {template}: {reason.lower()}") from None


def digest(task: TaskConfig) -> str:
    """A hash of the task and of the content of its files, 12 hex digits; no path is part of it.

    Keys at their defaults are left out, so that a new one changes no hash. A file that is missing has a hash
    of its own.
    """
    content = task.model_dump(mode="json", exclude={"name", "card"}, exclude_defaults=True)
    content["dataset"]["files"] = {
        role: _digest_of(Path(file)) for role, file in task.dataset.files.items()
    }
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _digest_of(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return f"{path.suffix} {hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError:
        return "missing"


def _dataset(path: Path, content: Any) -> dict[str, Any]:
    """The key `dataset` for the files that the key `data` names, whose paths are relative to `path`."""
    try:
        data = Data.model_validate(content)
    except ValidationError as error:
        given = content if isinstance(content, dict) else ()
        keys, reason = complaint(error, Data, {*Data.model_fields}, given)
        raise TaskError(f"{path}: {'.'.join(map(str, ('data', *keys)))}: {reason}") from None
    files: dict[str, str] = {}
    for role, file in (("train", data.train), ("eval", data.eval)):
        if file is None:
            continue
        if Path(file).suffix not in FORMATS:
            known = ", ".join(FORMATS)
            raise TaskError(f"{path}: data.{role}: {file} ends in none of {known}")
        files[role] = str(path.parent / file)
    splits = {"train": "train", "eval": "eval"} if data.eval else {"train": REST, "eval": HELD_OUT}
    return {
        "id": name(path),
        "config": "files",
        "revision": UNPINNED,
        "splits": splits,
        "sizes": UNKNOWN,
        "files": files,
        **data.model_dump(exclude={"train", "eval"}),
    }
