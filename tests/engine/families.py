"""Tiny models of every family and head that the engine must cut into units, and inputs for each."""

from collections.abc import Callable, Iterator

import torch
import transformers as T
from torch import nn

T.logging.set_verbosity_error()

SMALL = {
    "vocab_size": 99,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
GROUPED = {**SMALL, "num_key_value_heads": 2}
SEQ2SEQ = {
    "vocab_size": 99,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}


def _opt(**more) -> T.OPTConfig:
    sizes = {k: v for k, v in SMALL.items() if k != "intermediate_size"}
    return T.OPTConfig(**{"word_embed_proj_dim": 16, "ffn_dim": 32, **sizes, **more})


# family -> (class prefix, configuration, number of blocks)
CONFIGS: dict[str, tuple[str, Callable[[], T.PretrainedConfig], int]] = {
    "bert": ("Bert", lambda: T.BertConfig(**SMALL), 3),
    "roberta": ("Roberta", lambda: T.RobertaConfig(**SMALL), 3),
    "gpt2": (
        "GPT2",
        lambda: T.GPT2Config(
            vocab_size=99, n_embd=16, n_layer=3, n_head=4, n_positions=40, pad_token_id=0
        ),
        3,
    ),
    "gpt_neo": (
        "GPTNeo",
        lambda: T.GPTNeoConfig(
            vocab_size=99,
            hidden_size=16,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            max_position_embeddings=40,
            pad_token_id=0,
        ),
        2,
    ),
    "gpt_neox": ("GPTNeoX", lambda: T.GPTNeoXConfig(**SMALL), 3),
    "opt": ("OPT", _opt, 3),
    "opt_350m": (
        "OPT",
        lambda: _opt(word_embed_proj_dim=8, do_layer_norm_before=False),
        3,
    ),
    "llama": ("Llama", lambda: T.LlamaConfig(**GROUPED), 3),
    "mistral": ("Mistral", lambda: T.MistralConfig(**GROUPED), 3),
    "qwen2": ("Qwen2", lambda: T.Qwen2Config(**GROUPED), 3),
    "qwen3": ("Qwen3", lambda: T.Qwen3Config(**GROUPED, head_dim=4), 3),
    "gemma": ("Gemma", lambda: T.GemmaConfig(**GROUPED, head_dim=4), 3),
    "deberta_v2": (
        "DebertaV2",
        lambda: T.DebertaV2Config(
            **SMALL,
            relative_attention=True,
            position_buckets=8,
            norm_rel_ebd="layer_norm",
            pos_att_type="p2c|c2p",
            share_att_key=True,
        ),
        3,
    ),
    "t5": (
        "T5",
        lambda: T.T5Config(
            vocab_size=99,
            d_model=16,
            d_kv=4,
            d_ff=32,
            num_layers=2,
            num_heads=4,
            pad_token_id=0,
            decoder_start_token_id=0,
            eos_token_id=2,
        ),
        4,
    ),
    "bart": ("Bart", lambda: T.BartConfig(**SEQ2SEQ), 4),
    "mixtral": (
        "Mixtral",
        lambda: T.MixtralConfig(**GROUPED, num_local_experts=2, num_experts_per_tok=2),
        3,
    ),
}
HEADS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForMultipleChoice",
    "ForQuestionAnswering",
    "ForCausalLM",
    "LMHeadModel",
    "ForMaskedLM",
    "ForConditionalGeneration",
)


def pairs() -> Iterator[tuple[str, str]]:
    """Every (family, class name) that transformers has."""
    for family, (prefix, _, _) in CONFIGS.items():
        for head in HEADS:
            if hasattr(T, prefix + head):
                yield family, prefix + head


def heads() -> list[tuple[str, str]]:
    """As `pairs`, with the head instead of the whole name of the class."""
    return [(family, name.removeprefix(CONFIGS[family][0])) for family, name in pairs()]


def build(family: str, class_name: str) -> nn.Module:
    """The model with random weights from seed 0, and dropout off so that it is a function."""
    torch.manual_seed(0)
    config = CONFIGS[family][1]()
    if "CausalLM" in class_name and hasattr(config, "is_decoder"):
        config.is_decoder = True
    if class_name == "BartForCausalLM":
        config.is_encoder_decoder = False
    for key, value in vars(config).items():
        if ("dropout" in key or "pdrop" in key) and isinstance(value, float):
            setattr(config, key, 0.0)
    model = getattr(T, class_name)(config).train()
    if next(model.parameters()).device.type != "meta":
        with torch.no_grad():  # away from zeros and ones, where gradients vanish
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def inputs(class_name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Two examples with labels."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 99, (2, 10), generator=generator)
    ids[:, -1] = 2  # the end token, where BART and T5 look for it
    if class_name.endswith("ForMultipleChoice"):
        choices = torch.randint(4, 99, (2, 3, 10), generator=generator)
        return {"input_ids": choices, "labels": torch.tensor([0, 2])}
    if class_name.endswith("ForSequenceClassification"):
        return {"input_ids": ids, "labels": torch.tensor([0, 1])}
    if class_name.endswith("ForTokenClassification"):
        return {"input_ids": ids, "labels": ids % 2}
    if class_name.endswith("ForQuestionAnswering"):
        ends = torch.tensor([2, 3]), torch.tensor([4, 5])
        return {"input_ids": ids, "start_positions": ends[0], "end_positions": ends[1]}
    return {"input_ids": ids, "labels": ids}
