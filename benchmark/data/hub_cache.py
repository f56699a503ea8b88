"""What the library `datasets` has prepared in its cache: found by names of folders, without the library."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from tasks.dataset import Origin


def root() -> Path:
    """The cache folder of `datasets`, by its own environment variables."""
    from huggingface_hub import constants

    default = Path(constants.HF_HOME) / "datasets"
    return Path(os.environ.get("HF_DATASETS_CACHE") or default).expanduser()


def prepared(origin: Origin) -> Iterator[Path]:
    """<root>/<owner>___<name>/<config>/<version>/<commit>/dataset_info.json of the dataset.

    The commit is compared only if it is pinned: the folder of a branch has the name of the commit that the
    branch pointed to.
    """
    owner, _, name = origin.id.rpartition("/")
    wanted = f"{owner}___{name}".lstrip("_")
    commit = origin.revision if origin.pinned else "*"
    for folder in root().glob("*"):
        if _plain(folder.name) == _plain(wanted):
            yield from folder.glob(f"{origin.config}/*/{commit}/dataset_info.json")


def rows(origin: Origin, split: str) -> int | None:
    """The rows of a split; None if the dataset is not there."""
    for info in prepared(origin):
        try:
            return int(
                json.loads(info.read_text(encoding="utf-8"))["splits"][split]["num_examples"]
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _plain(name: str) -> str:
    """A form of the name that is equal for both spellings: `datasets` converts names to snake_case."""
    return name.replace("_", "").lower()
