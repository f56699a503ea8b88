"""The layers of a checkpoint by the names of its tensors, for options that name or count layers.

A plan refuses by them what no model with these layers can do. No weights are read, and no torch.
"""

import functools
import importlib.util
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import UserError
from benchmark.files import stamp
from benchmark.models import headers
from benchmark.models.damaged import DAMAGED, reason

NEW = frozenset(
    {
        *("classifier", "score", "qa_outputs", "lm_head", "cls", "predictions", "transform"),
        *("decoder", "dense", "out_proj", "pre_classifier", "summary", "pooler", "embed_out"),
        *("layer_norm", "LayerNorm"),
    }
)
"""Names of the modules of heads, which a checkpoint may lack."""


@dataclass(frozen=True)
class Layers:
    """modules: the dotted names of the modules with weights. The model's own names may have more before the
    first dot, and the modules of a new head are missing. blocks: how many repeated blocks there are."""

    modules: frozenset[str]
    blocks: int

    @property
    def names(self) -> set[str]:
        """The last parts of the modules' names, which are equal in all blocks."""
        return {name.rpartition(".")[2] for name in self.modules}

    def lack(self, target: str) -> bool:
        """Whether no module of the model can have the name `target`, or end in it after a dot."""
        if not NEW.isdisjoint(target.split(".")):
            return False
        return not any(
            f".{name}".endswith(f".{target}") or f".{target}".endswith(f".{name}")
            for name in self.modules
        )


def of_folder(name: str, folder: Path) -> Layers | None:
    """The layers of the checkpoint in `folder`. None if it has no safetensors, or if transformers renames the
    tensors of its family when it loads them.

    name: of the model. Raises UserError for files that cannot be read.
    """
    return _of_folder(name, folder, stamp(folder))


@functools.lru_cache
def _of_folder(name: str, folder: Path, files: object) -> Layers | None:
    """`of_folder` as long as the `files` are these: a plan asks for each of its runs."""
    try:
        family = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        files = sorted(folder.glob("*.safetensors"))
        if not files or f'"{family}":' in _renaming():
            return None
        return of_tensors(tensor for path in files for tensor in headers.read(path))
    except DAMAGED as error:
        raise UserError(f"model {name}: cannot be loaded: {reason(error)}") from None


def of_tensors(names: Iterable[str]) -> Layers:
    """The layers of which these are the tensors.

    A block is an element of an outermost numbered list, whose own modules have names; as in the engine's
    units, an element that is one module is none.
    """
    modules = frozenset(name.rpartition(".")[0] for name in names)
    blocks = defaultdict(set)
    for module in modules:
        if found := re.match(r"(.*?\.|)(\d+)\.", module):
            blocks[found[1]].add(found[2])
    return Layers(modules, sum(map(len, blocks.values())))


@functools.cache
def _renaming() -> str:
    """The source of the table of families whose tensors are renamed; importing it would import torch."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None and spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "conversion_mapping.py"
    return path.read_text(encoding="utf-8")
