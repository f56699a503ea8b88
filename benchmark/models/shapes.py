"""Models by shape: transformers configs, built on the meta device without weights.

SHAPES has the six models of the HiFT paper's memory tables with their heads (RoBERTa: classification with two
labels, the others: causal LM), GPT-2 medium from its E2E table, SmolLM2, the GPT-2 shape that
`hift-bench speed` times, and larger models that `hift-bench fit` is asked about, with the sizes in their
public config.json. They need no network, and neither do the models in packages and the twins. To add a shape,
add one entry.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError
from benchmark.models.damaged import DAMAGED, reason
from benchmark.models.registry import source

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Shape:
    """A transformers model class, its config class, and the config values that differ from its defaults."""

    model: str
    config: str
    values: dict[str, Any] = field(default_factory=dict)


def _grouped(
    kind: str, hidden: int, blocks: int, heads: tuple[int, int], wide: int, words: int
) -> Shape:
    """A LLaMA, Mistral or Qwen2 model with untied embeddings. heads: of queries, of keys and values."""
    values: dict[str, Any] = {"hidden_size": hidden, "num_hidden_layers": blocks}
    values |= {"num_attention_heads": heads[0], "num_key_value_heads": heads[1]}
    values |= {"intermediate_size": wide, "vocab_size": words, "tie_word_embeddings": False}
    values |= {"max_position_embeddings": 32768}
    return Shape(f"{kind}ForCausalLM", f"{kind}Config", values)


_ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}

SHAPES = {
    "roberta-base": Shape("RobertaForSequenceClassification", "RobertaConfig", _ROBERTA),
    "roberta-large": Shape(
        "RobertaForSequenceClassification",
        "RobertaConfig",
        _ROBERTA
        | {"hidden_size": 1024, "num_hidden_layers": 24}
        | {"num_attention_heads": 16, "intermediate_size": 4096},
    ),
    "gpt2-medium": Shape(
        "GPT2LMHeadModel", "GPT2Config", {"n_embd": 1024, "n_layer": 24, "n_head": 16}
    ),
    "gpt2-large": Shape(
        "GPT2LMHeadModel", "GPT2Config", {"n_embd": 1280, "n_layer": 36, "n_head": 20}
    ),
    "gpt-neo-2.7b": Shape(
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {"hidden_size": 2560, "num_layers": 32, "num_heads": 20}
        | {"attention_types": [[["global", "local"], 16]]},
    ),
    "llama-7b": Shape("LlamaForCausalLM", "LlamaConfig"),
    "smollm2-135m": Shape(
        "LlamaForCausalLM",
        "LlamaConfig",
        {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9}
        | {"num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152}
        | {"max_position_embeddings": 8192, "tie_word_embeddings": True},
    ),
    "llama-3.1-8b": _grouped("Llama", 4096, 32, (32, 8), 14336, 128256),
    "llama-3.1-70b": _grouped("Llama", 8192, 80, (64, 8), 28672, 128256),
    "mistral-7b": _grouped("Mistral", 4096, 32, (32, 8), 14336, 32768),
    "qwen2.5-7b": _grouped("Qwen2", 3584, 28, (28, 4), 18944, 152064),
    "qwen2.5-14b": _grouped("Qwen2", 5120, 48, (40, 8), 13824, 152064),
    "qwen2.5-72b": _grouped("Qwen2", 8192, 80, (64, 8), 29568, 152064),
    "opt-13b": Shape(
        "OPTForCausalLM",
        "OPTConfig",
        {"hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40}
        | {"ffn_dim": 20480, "word_embed_proj_dim": 5120},
    ),
    "gpt2-12x512": Shape(
        "GPT2LMHeadModel",
        "GPT2Config",
        {"n_embd": 512, "n_layer": 12, "n_head": 8, "vocab_size": 8000, "n_positions": 128},
    ),
}


def config(name: str) -> "tuple[str, PretrainedConfig]":
    """The class name and config of a model, by a name of MODELS, a local folder or a Hub id.

    Of all but the entries of SHAPES config.json is read, and nothing else. A model without a head gets a
    causal LM's if it is a decoder, and else a classifier's. Raises UserError for any other name, and for a
    config that names no architecture of transformers.
    """
    import transformers

    if name in SHAPES:
        shape = SHAPES[name]
        return shape.model, getattr(transformers, shape.config)(**shape.values)
    location = source(name).location
    try:
        loaded = transformers.AutoConfig.from_pretrained(location, trust_remote_code=False)
    except DAMAGED as error:
        raise UserError(f"model {name}: {reason(error)}") from None
    architectures = getattr(loaded, "architectures", None) or []
    if not architectures or not hasattr(transformers, architectures[0]):
        raise UserError(f"model {name}: config.json names no architecture of transformers")
    return _with_head(architectures[0], loaded.model_type), loaded


def _with_head(architecture: str, family: str) -> str:
    from transformers.models.auto import modeling_auto as auto

    if auto.MODEL_MAPPING_NAMES.get(family) != architecture:
        return architecture
    decoders = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    heads = auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    if family not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        heads = decoders
    return heads.get(family, architecture)


def build(name: str, device: str = "meta") -> "PreTrainedModel":
    """The model with random weights on `device`. On "meta" (the default) it has no weights.

    Raises UserError as `config` does, and for sizes of which no model can be built.
    """
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    model_class, values = config(name)
    try:
        with torch.device(device):
            return getattr(transformers, model_class)(values)
    except (*DAMAGED, RuntimeError) as error:  # sizes that do not go together
        raise UserError(f"model {name}: {reason(error)}") from None
