"""Converts a GGUF file to a folder with config.json, fp32 safetensors and tokenizer for transformers.

transformers reads GGUF slowly, keeps a quantization config that prevents saving the model, and ignores how
the file's tokenizer splits text. So each file is converted once and the folder is cached.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cache import cache_folder
from benchmark.errors import UserError, nearest
from benchmark.files import build_once
from benchmark.models import weights

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

# Part of the cache path. Raise it whenever the converted files change.
VERSION = "v1"


def converted(file: Path, version: str) -> Path:
    """The folder with the converted model of `file`, which comes from `version` of its package.

    The first call converts (20 s and 1.5 GB of memory for SmolLM2-135M), later ones use the cache. Several
    processes may call it at once. torch's random state does not change. Raises UserError for a file that
    lacks weights or has an unknown tokenizer.
    """
    target = cache_folder(f"gguf-{VERSION}") / f"{file.stem}-{version}"
    return build_once(target, lambda folder: _convert(file, folder))


def _convert(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    place: dict[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    with torch.random.fork_rng(devices=[]):
        # annotated as a model; with the loading info it is a pair
        pair: Any = AutoModelForCausalLM.from_pretrained(
            **place, dtype=torch.float32, output_loading_info=True
        )
        read, loading = pair
        weights.initialised(file.name, read, loading)
        config = type(read.config).from_dict(_plain(read.config.to_dict()))
        model = type(read)(config)
    model.load_state_dict(read.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(**place)
    tokenizer.backend_tokenizer.pre_tokenizer = _splitting(file)
    tokenizer.model_max_length = config.max_position_embeddings
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """`config` without the quantization, which fp32 weights do not have, and without the model's title, which
    transformers stores where an address belongs."""
    return {
        k: v for k, v in config.items() if k not in ("quantization_config", "_model_name_or_path")
    }


def _splitting(file: Path) -> "PreTokenizer":
    """The pre-tokenizer, which splits a text before the merges. transformers uses GPT-2's for every file.

    The file has only its name (`tokenizer.ggml.pre`). The meaning of the names is taken from llama.cpp,
    src/llama-vocab.cpp (the regular expressions of LLAMA_VOCAB_PRE_TYPE_*). Raises UserError for other names.
    """
    from gguf import GGUFReader
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    gpt2 = ByteLevel(add_prefix_space=False, use_regex=True)
    known = {"gpt-2": gpt2, "smollm": Sequence([Digits(individual_digits=True), gpt2])}
    field = GGUFReader(file).get_field("tokenizer.ggml.pre")
    name = field.contents() if field else None
    if name not in known:
        raise UserError(f"{file}: tokenizer.ggml.pre: {name!r} is not known{nearest(name, known)}")
    return known[name]
