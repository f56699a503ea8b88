"""Encoded rows, kept by the hash of all they are made from: a second start of a cell tokenises nothing.

A Parquet file with checksums in the cache folder `encoded`. Processes that make the same file at once write
the same bytes, each whole; what cannot be read is made again.
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
    """What `adapter.encode` makes of the raw `columns`, whose rows the hashes `ids` stand for.

    Raises TaskError as the adapter does.
    """
    from datasets import Dataset

    key = _key(adapter, columns, ids, tokenizer, max_length, training)
    path = cache_folder("encoded") / f"{key}.parquet"
    kept = _read(path)
    if kept is not None:
        return kept
    made = Dataset.from_dict(adapter.encode(columns, tokenizer, max_length, training))
    _write(made, path)
    return made


def _key(
    adapter: Adapter,
    columns: Mapping[str, list[Any]],
    ids: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    training: bool,
) -> str:
    import tokenizers
    import transformers

    backend = tokenizer.backend_tokenizer
    backend.no_padding()  # an earlier call's settings; every call makes its own
    backend.no_truncation()
    whole = {
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
    text = json.dumps(whole, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@functools.cache
def _code() -> str:
    """A hash of the adapters' sources and of what they share, less the metrics."""
    digest = hashlib.sha256()
    for path in sorted(Path(tasks.__path__[0]).glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> "Dataset | None":
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
    """Atomically; a cache that cannot be written (a full or read-only disk) is done without."""
    import pyarrow.parquet

    with contextlib.suppress(OSError), replacing(path) as temporary:
        pyarrow.parquet.write_table(rows.data.table, temporary, write_page_checksum=True)
