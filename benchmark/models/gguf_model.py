"""A GGUF file -> a folder with config.json, fp32 safetensors and tokenizer, as the Auto classes load it.

transformers reads GGUF slowly, gives the model a quantisation that it cannot be saved with, and leaves out
how its tokenizer splits text. So the file is converted once, and the folder kept in the cache.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cache import cache_folder
from benchmark.errors import UserError, nearest
from benchmark.files import build_once
from benchmark.models import weights

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

# Part of the cache path. Raise it whenever what is written below changes.
VERSION = "v1"


def converted(file: Path, version: str) -> Path:
    """The folder of the model in `file`, which is that of `version` of its package: made the first time
    (20 s and 1.5 GB of memory for SmolLM2-135M), reused afterwards.

    Safe for several processes at once; torch's random state is left as it was.
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
        read, loading = AutoModelForCausalLM.from_pretrained(
            **place, dtype=torch.float32, output_loading_info=True
        )
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
    """Without the quantisation, which the weights no longer have, and the title in place of an address."""
    return {
        k: v for k, v in config.items() if k not in ("quantization_config", "_model_name_or_path")
    }


def _splitting(file: Path) -> "PreTokenizer":
    """How the tokenizer splits a text before its merges: the file has only a name for it,
    `tokenizer.ggml.pre`, and transformers takes GPT-2's way for all.

    Source: llama.cpp, src/llama-vocab.cpp, the regular expressions of LLAMA_VOCAB_PRE_TYPE_*.
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
