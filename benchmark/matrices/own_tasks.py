"""The tasks that a matrix asks for: shipped ones by name, and the user's own by the path of their YAML."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tasks.base
from benchmark.errors import UserError, nearest
from benchmark.matrices import names
from benchmark.records import yamltext
from tasks import own
from tasks.config import TaskConfig


@dataclass(frozen=True)
class Asked:
    """A task that a matrix asks for. `file`: its YAML, relative to the working directory; None if shipped."""

    config: TaskConfig
    file: Path | None = None

    @property
    def name(self) -> str:
        return self.config.name

    @functools.cached_property
    def fields(self) -> dict[str, Any]:
        """The fields of a RunSpec that say which task it is."""
        of_file = {"task_file": str(self.file), "task_digest": own.digest(self.config)}
        return {
            "task": self.name,
            "task_version": self.config.version,
            **(of_file if self.file else {}),
        }

    def source(self, data: Any) -> dict[str, Any]:
        """The field `data` of a RunSpec, from what the matrix gives. Raises UserError for a wrong source."""
        if self.config.dataset.files:
            if data not in (None, "files"):
                raise UserError(f"{data}: {self.name} reads its own files: data: files")
            return {"data": "files"}
        if data == "files" or (self.file and data not in (None, "hub")):
            have = "hub" if self.file else "hub, mirror or twin"
            raise UserError(f"{data}: {self.name} has a dataset on the Hub: data: {have}")
        return {"data": "hub"} if self.file else {}


def _check_text(file: Path) -> None:
    """Raises UserError for a file that is no sound YAML, such as one with a key given twice."""
    try:
        yamltext.parse(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
    except OSError:  # `own.load` says so
        pass


def asked(entries: Iterable[str], matrix: Path) -> dict[str, Asked]:
    """The task of each entry of `tasks:` in the file `matrix`.

    Raises UserError for an unknown name, and for two files that would have one name; TaskError for a wrong
    file.
    """
    found: dict[str, Asked] = {}
    files: dict[str, str] = {}
    for entry in entries:
        if own.is_file(entry):
            file = matrix.parent / entry
            names.check_own_task(entry, file.stem, matrix)
            if (other := files.setdefault(file.stem.casefold(), entry)) != entry:
                raise UserError(
                    f"{matrix}: tasks.{entry}: would be named {own.name(file)}, as {other} is: rename one"
                )
            _check_text(file)
            found[entry] = Asked(own.load(file), file)
        elif entry in (known := tasks.base.names()):
            found[entry] = Asked(tasks.base.load(entry))
        else:
            raise UserError(f"{matrix}: tasks.{entry}: unknown task{nearest(entry, known)}")
    return found
