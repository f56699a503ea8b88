"""Tiny models with resident and with streamed weights, and steps on them."""

import torch
import transformers as T
from families import CONFIGS, inputs
from torch import nn

from benchmark.engine import HiFT

FAMILIES = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "gpt2": "GPT2LMHeadModel",
    "opt": "OPTForCausalLM",
    "llama": "LlamaForCausalLM",
    "t5": "T5ForConditionalGeneration",
}
MASTERS = {"none": {}, "all": {"master": "all", "low_dtype": torch.bfloat16}}


def with_dropout(family: str) -> nn.Module:
    """The family's tiny model with dropout and random weights from seed 0. It has no key-value cache, whose
    tensors are laid out otherwise, and dropout draws in that order."""
    torch.manual_seed(0)
    config = CONFIGS[family][1]()
    config.use_cache = False
    if family == "llama":
        config.attention_dropout = 0.1
    return getattr(T, FAMILIES[family])(config).train()


def steps(model, optimizer, class_name: str, numbers: range) -> None:
    """Optimizer steps on batches of these numbers, each of which has its own random numbers for dropout."""
    for number in numbers:
        torch.manual_seed(number)
        model(**inputs(class_name, seed=number)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def both(build, **settings) -> list[tuple[nn.Module, HiFT]]:
    """The same model twice, with resident and with streamed weights."""
    made = []
    for weights in ("resident", "stream"):
        model = build()
        made.append((model, HiFT(model, "adamw", lr=1e-2, weights=weights, **settings)))
    return made
