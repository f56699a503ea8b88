"""Twin models: a tiny model of each family, with random weights and a tokenizer trained on twin text.

Each is a folder laid out as on the Hub (config.json, model.safetensors, tokenizer files), which the Auto
classes load like any checkpoint. It has the weights of the base model alone, so that any head can be put on
it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError, nearest
from benchmark.files import build_once

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Part of the cache path and of a record's model revision. Raise it whenever weights or vocabulary
# change (tests/twin has the digests).
VERSION = "v1"

VOCAB_SIZE = 1000
MAX_LENGTH = 128  # default number of positions, special tokens included
SEED = 0
LAYERS, HIDDEN, HEADS, INTERMEDIATE = 4, 64, 2, 128


@dataclass(frozen=True)
class Twin:
    """The twin of one model family.

    family: its name. model_type: that of transformers. heads: the heads it can have, keys of
    benchmark.models.facts.HEADS. config: the sizes, under the names of the family. max_length: positions,
    special tokens included.
    """

    family: str
    model_type: str
    heads: tuple[str, ...]
    tokenizer: str  # class name in transformers
    training: str  # algorithm of the vocabulary: wordpiece, bytes or metaspace
    special: tuple[str, ...]  # in id order, pad among them
    config: Mapping[str, Any]
    tokenizer_options: Mapping[str, Any] = field(default_factory=dict)
    max_length: int = MAX_LENGTH


_SIZES = {
    "num_hidden_layers": LAYERS,
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "max_position_embeddings": MAX_LENGTH,
}
_ANY = ("sequence_classification", "token_classification", "question_answering")
_ENCODER, _DECODER = (*_ANY, "masked_lm"), (*_ANY, "causal_lm")
_GPT_TOKENS = ("<|endoftext|>", "<|pad|>")  # GPT-2 has no padding token, and a twin needs one
_GPT_OPTIONS = {"pad_token": "<|pad|>"}

_GPT2 = Twin(
    "GPT-2",
    "gpt2",
    _DECODER,
    "GPT2Tokenizer",
    "bytes",
    _GPT_TOKENS,
    {
        "n_layer": LAYERS,
        "n_embd": HIDDEN,
        "n_head": HEADS,
        "n_inner": INTERMEDIATE,
        "n_positions": MAX_LENGTH,
    },
    _GPT_OPTIONS,
)

TWINS: dict[str, Twin] = {
    "tiny-bert": Twin(
        "BERT",
        "bert",
        _ENCODER,
        "BertTokenizer",
        "wordpiece",
        ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        {**_SIZES, "intermediate_size": INTERMEDIATE},
    ),
    "tiny-roberta": Twin(
        "RoBERTa",
        "roberta",
        _ENCODER,
        "RobertaTokenizer",
        "bytes",
        ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
        # RoBERTa's positions start after the padding id, 1
        {
            **_SIZES,
            "intermediate_size": INTERMEDIATE,
            "max_position_embeddings": MAX_LENGTH + 2,
            "type_vocab_size": 1,
        },
    ),
    "tiny-gpt2": _GPT2,
    # for prompts longer than MAX_LENGTH: this vocabulary splits most words of GSM8K and Alpaca
    "tiny-gpt2-512": replace(_GPT2, config={**_GPT2.config, "n_positions": 512}, max_length=512),
    "tiny-gpt-neo": Twin(
        "GPT-Neo",
        "gpt_neo",
        _DECODER,
        "GPT2Tokenizer",
        "bytes",
        _GPT_TOKENS,
        {
            "num_layers": LAYERS,
            "hidden_size": HIDDEN,
            "num_heads": HEADS,
            "intermediate_size": INTERMEDIATE,
            "max_position_embeddings": MAX_LENGTH,
            "attention_types": [[["global", "local"], LAYERS // 2]],
            "window_size": 32,
        },
        _GPT_OPTIONS,
    ),
    "tiny-opt": Twin(
        "OPT",
        "opt",
        ("sequence_classification", "question_answering", "causal_lm"),
        "GPT2Tokenizer",
        "bytes",
        ("<s>", "<pad>", "</s>", "<unk>"),
        {**_SIZES, "ffn_dim": INTERMEDIATE, "word_embed_proj_dim": HIDDEN},
        {
            "bos_token": "</s>",
            "eos_token": "</s>",
            "unk_token": "</s>",
            "pad_token": "<pad>",
            "add_bos_token": True,
        },
    ),
    "tiny-llama": Twin(
        "LLaMA",
        "llama",
        _DECODER,
        "LlamaTokenizer",
        "metaspace",
        ("<unk>", "<s>", "</s>", "<pad>"),
        {**_SIZES, "intermediate_size": INTERMEDIATE},
        {"pad_token": "<pad>", "add_bos_token": True},
    ),
}


def build(name: str, root: Path) -> Path:
    """Return the checkpoint folder `root/name`, which is built at the first call, in seconds.

    Several processes may call it at once. The global random state does not change. Raises UserError for a
    name that is not in TWINS.
    """
    if name not in TWINS:
        raise UserError(f'no twin model "{name}"{nearest(name, TWINS)}')
    return build_once(root / name, lambda folder: _save(TWINS[name], folder))


def _save(twin: Twin, folder: Path) -> None:
    from benchmark.twin.vocabulary import train_tokenizer

    tokenizer = train_tokenizer(twin)
    tokenizer.save_pretrained(folder)
    special = {
        f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos")
    }
    _random_model(twin, "cpu", **special).save_pretrained(folder)


def _random_model(twin: Twin, device: str, **special: int | None) -> "PreTrainedModel":
    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(
        twin.model_type, vocab_size=VOCAB_SIZE, **dict(twin.config), **special
    )
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(SEED)
        return AutoModel.from_config(config, dtype=torch.float32)
