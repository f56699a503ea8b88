"""Twin data: generated rows in `<root>/<dataset id>/`, laid out as on the Hub (parquet files and a README).

A twin and a mirror are therefore read by the same call: `datasets.load_dataset(str(folder), config)`.
"""

import hashlib
import importlib
import random
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from benchmark.errors import UserError, nearest
from benchmark.files import build_once, write_text

if TYPE_CHECKING:
    from benchmark.twin.generators import Tables

# Part of the cache path and of a record's dataset revision. Raise it whenever the output of a generator
# changes (tests/twin has the digests). A new generator does not need it.
VERSION = "v1"

# (dataset id, config) -> "module:function" with function(rng) -> Tables. One line per twin.
GENERATORS = {
    ("nyu-mll/glue", "sst2"): "benchmark.twin.generators.sentiment:sst2",
    ("nyu-mll/glue", "mrpc"): "benchmark.twin.generators.paraphrase:mrpc",
    ("nyu-mll/glue", "cola"): "benchmark.twin.generators.grammar:cola",
    ("nyu-mll/glue", "stsb"): "benchmark.twin.generators.similarity:stsb",
    ("nyu-mll/glue", "qqp"): "benchmark.twin.generators.paraphrase:qqp",
    ("nyu-mll/glue", "mnli"): "benchmark.twin.generators.inference:mnli",
    ("nyu-mll/glue", "qnli"): "benchmark.twin.generators.reading:qnli",
    ("nyu-mll/glue", "rte"): "benchmark.twin.generators.reading:rte",
    ("nyu-mll/glue", "wnli"): "benchmark.twin.generators.commonsense:wnli",
    ("nyu-mll/glue", "ax"): "benchmark.twin.generators.inference:ax",
    ("pietrolesci/glue_diagnostics", "default"): "benchmark.twin.generators.inference:diagnostics",
    ("stanfordnlp/snli", "plain_text"): "benchmark.twin.generators.inference:snli",
    ("aps/super_glue", "boolq"): "benchmark.twin.generators.reading:super_boolq",
    ("aps/super_glue", "cb"): "benchmark.twin.generators.inference:cb",
    ("aps/super_glue", "copa"): "benchmark.twin.generators.commonsense:copa",
    ("aps/super_glue", "multirc"): "benchmark.twin.generators.answering:multirc",
    ("aps/super_glue", "record"): "benchmark.twin.generators.answering:record",
    ("aps/super_glue", "rte"): "benchmark.twin.generators.reading:super_rte",
    ("aps/super_glue", "wic"): "benchmark.twin.generators.commonsense:wic",
    ("aps/super_glue", "wsc"): "benchmark.twin.generators.commonsense:wsc",
    ("aps/super_glue", "wsc.fixed"): "benchmark.twin.generators.commonsense:wsc",
    ("google/boolq", "default"): "benchmark.twin.generators.reading:boolq",
    ("rajpurkar/squad", "plain_text"): "benchmark.twin.generators.answering:squad",
    ("tuetschek/e2e_nlg", "default"): "benchmark.twin.generators.realising:e2e_nlg",
    ("CogComp/trec", "default"): "benchmark.twin.generators.questions:trec",
    ("SetFit/sst5", "default"): "benchmark.twin.generators.sentiment:sst5",
    ("eriktks/conll2003", "conll2003"): "benchmark.twin.generators.tagging:conll2003",
    ("openai/gsm8k", "main"): "benchmark.twin.generators.arithmetic:gsm8k",
    ("tatsu-lab/alpaca", "default"): "benchmark.twin.generators.instructions:alpaca",
    ("Salesforce/wikitext", "wikitext-2-raw-v1"): "benchmark.twin.generators.prose:wikitext",
    ("GEM/dart", "default"): "benchmark.twin.generators.realising:dart",
    ("GEM/web_nlg", "en"): "benchmark.twin.generators.realising:web_nlg",
    ("ucinlp/drop", "default"): "benchmark.twin.generators.answering:drop",
}


class Origin(Protocol):
    """A dataset and its config, as a task names them."""

    @property
    def id(self) -> str: ...
    @property
    def config(self) -> str: ...


def serve(origins: Iterable[Origin]) -> bool:
    """Whether every one of `origins` has a twin."""
    return all((origin.id, origin.config) in GENERATORS for origin in origins)


def build(dataset_id: str, config: str, root: Path) -> Path:
    """Return the folder `root/dataset_id`, with the data of `config`, which is generated at the first call.

    The content depends only on VERSION, which the caller therefore puts into `root`. Several processes may
    call it at once. Raises UserError for a pair without a generator.
    """
    if (dataset_id, config) not in GENERATORS:
        pairs = [f"{known}/{name}" for known, name in GENERATORS]
        raise UserError(
            f'no twin data for "{dataset_id}/{config}"{nearest(f"{dataset_id}/{config}", pairs)}'
        )
    folder = root / dataset_id
    build_once(folder / config, lambda scratch: _write_splits(dataset_id, config, scratch))
    _write_header(folder)
    return folder


def tables(dataset_id: str, config: str) -> "Tables":
    """The generated rows of one twin, the same on every machine."""
    module, function = GENERATORS[dataset_id, config].split(":")
    generate = getattr(importlib.import_module(module), function)
    generated: Tables = generate(random.Random(f"{VERSION}:{dataset_id}:{config}"))
    return generated


def _write_splits(dataset_id: str, config: str, folder: Path) -> None:
    """Write one parquet file per split to `folder`."""
    import pyarrow
    import pyarrow.parquet

    twin = tables(dataset_id, config)
    schema = twin.features.arrow_schema  # its metadata has the features, with the names of labels
    for split, rows in twin.splits.items():
        table = pyarrow.Table.from_pylist(rows, schema=schema)
        pyarrow.parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")


def _write_header(folder: Path) -> None:
    """Write README.md, whose `configs:` header lists the configs in `folder`.

    The lock is for two processes that build different configs: neither drops the entry of the other. The
    digest is for the cache of `datasets`. Its key for a local folder is this header, not the path or the
    content of the files, so without a digest a twin could be read from the cache of a mirror.
    """
    from filelock import FileLock

    readme = folder / "README.md"
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        lines = ["---", "configs:"]
        for config in sorted(entry.name for entry in folder.iterdir() if _is_config(entry)):
            lines += [f"- config_name: {config}"]
            lines += [f"  description: twin {VERSION} {_digest(folder / config)}", "  data_files:"]
            files = (folder / config).glob("*.parquet")
            for split in sorted((file.name.split("-")[0] for file in files), key=_place):
                lines += [f"  - split: {split}", f"    path: {config}/{split}-*"]
        header = "\n".join([*lines, "---", "", f"Generated twin data, {VERSION}.", ""])
        if readme.is_file() and readme.read_text() == header:
            return
        write_text(readme, header)


def _place(split: str) -> tuple[int, str]:
    """A sort key with the Hub's order: train, validation (also validation_matched), test."""
    return ("train", "validation", "test").index(split.split("_")[0]), split


def _digest(folder: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the parquet files."""
    files = sorted(folder.glob("*.parquet"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _is_config(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")
