"""A cache of encoded rows, so that a run with the same task, rows and tokenizer need not tokenise again.

The cache folder `encoded` has one Parquet file per encoding, with checksums. Its name is a hash of everything
the encoding depends on. Two processes may write the same file at once: each write is atomic and has the same
content. A file that cannot be read is written again.
"""

import contextlib
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tasks
from benchmark.cache import cache_folder
from benchmark.files import replacing
from tasks.base import Adapter

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def encoded(
    adapter: Adapter,
    columns: Mapping[str, list[Any]],
    ids: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    training: bool,
) -> "Dataset":
    """The result of `adapter.encode` for the raw `columns`, from the cache if it is there.

    `ids`: a hash of each row. Raises TaskError as `adapter.encode` does.
    """
    from datasets import Dataset

    key = _key(adapter, columns, ids, tokenizer, max_length, training)
    path = cache_folder("encoded") / f"{key}.parquet"
    cached = _read(path)
    if cached is not None:
        return cached
    rows = Dataset.from_dict(adapter.encode(columns, tokenizer, max_length, training))
    _write(rows, path)
    return rows


def _key(
    adapter: Adapter,
    columns: Mapping[str, list[Any]],
    ids: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    training: bool,
) -> str:
    """A hash of everything that the encoded rows depend on, 32 hex digits."""
    import tokenizers
    import transformers

    backend = tokenizer.backend_tokenizer
    backend.no_padding()  # padding and truncation are settings of the last call, not of the tokenizer
    backend.no_truncation()
    content = {
        "rows": ids,
        "idx": columns.get("idx"),  # not in `ids`, but a template may read it
        "task": adapter.config.model_dump(mode="json", exclude={"card"}),
        "demonstrations": adapter.demonstrations,
        "code": _code(),
        "libraries": [transformers.__version__, tokenizers.__version__],
        "tokenizer": [type(tokenizer).__name__, tokenizer.special_tokens_map, backend.to_str()],
        "max_length": max_length,
        "training": training,
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@functools.cache
def _code() -> str:
    """A hash of the source files of `tasks/`, without the metrics."""
    digest = hashlib.sha256()
    for path in sorted(Path(tasks.__path__[0]).glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> "Dataset | None":
    """The rows in a cache file; None if it is missing or damaged."""
    import pyarrow
    import pyarrow.parquet
    from datasets import Dataset
    from datasets.table import InMemoryTable

    try:
        table = pyarrow.parquet.read_table(path, page_checksum_verification=True)
    except (OSError, pyarrow.ArrowException):
        return None
    return Dataset(InMemoryTable(table))


def _write(rows: "Dataset", path: Path) -> None:
    """Write a cache file atomically. If the disk is full or read-only, the run continues without a cache."""
    import pyarrow.parquet

    with contextlib.suppress(OSError), replacing(path) as temporary:
        pyarrow.parquet.write_table(rows.data.table, temporary, write_page_checksum=True)
