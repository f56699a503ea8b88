"""Tiny models of six families as folders with a config.json alone, and the real step they are held to."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as T

from benchmark.measure.live_bytes import LiveBytes
from benchmark.measure.optimizer_state import active_group, state_bytes, state_tensors
from benchmark.measure.weights import device_weights, host_weights
from benchmark.memory.setting import Setting
from benchmark.memory.training import Training

WIDE = {"vocab_size": 211, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
POSITIONS = {"max_position_embeddings": 66, "pad_token_id": 1}
FAMILIES = {
    "bert": (
        "BertForSequenceClassification",
        lambda: T.BertConfig(**WIDE, **POSITIONS, intermediate_size=96),
    ),
    "roberta": (
        "RobertaForSequenceClassification",
        lambda: T.RobertaConfig(**WIDE, **POSITIONS, intermediate_size=96),
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        lambda: T.GPT2Config(vocab_size=211, n_embd=32, n_layer=4, n_head=4, n_positions=64),
    ),
    "gpt_neo": (
        "GPTNeoForCausalLM",
        lambda: T.GPTNeoConfig(
            vocab_size=211,
            hidden_size=32,
            num_layers=4,
            num_heads=4,
            attention_types=[[["global", "local"], 2]],
            max_position_embeddings=64,
        ),
    ),
    "opt": (
        "OPTForCausalLM",
        lambda: T.OPTConfig(**WIDE, **POSITIONS, ffn_dim=96, word_embed_proj_dim=32),
    ),
    "llama": (
        "LlamaForCausalLM",
        lambda: T.LlamaConfig(**WIDE, intermediate_size=96, max_position_embeddings=64),
    ),
}


@cache
def folder(family: str) -> str:
    """A folder with that family's tiny config.json."""
    path = Path(tempfile.mkdtemp(prefix=f"tiny_{family}_"))
    name, config = FAMILIES[family]
    made = config()
    made.architectures = [name]
    made.save_pretrained(path)
    return str(path)


@cache
def shallow() -> str:
    """A folder with the config.json of the tiny GPT-2 with one block: for searches, which simulate often."""
    path = tempfile.mkdtemp(prefix="tiny_shallow_")
    made = T.GPT2Config.from_pretrained(folder("gpt2"))
    made.n_layer = 1
    made.save_pretrained(path)
    return path


def setting(family: str, **more) -> Setting:
    """A small batch on the family's tiny model."""
    return Setting(**{"model": folder(family), "batch_size": 3, "seq_len": 24, **more})


def counted(setting: Setting) -> dict[int, int]:
    """group -> peak bytes of the real step on the CPU; two sweeps of every group, the second counted;
    without groups both steps.

    Where groups are drawn and their state is kept, a sweep is counted once each has it.
    """
    torch.manual_seed(0)
    training = Training(setting)
    optimizer: Any = training.optimizer
    steps = getattr(getattr(optimizer, "plan", None), "schedule", None)
    sweep = steps.sweep_steps if steps else 2
    before = sweep if steps else 0
    if steps and steps.drawn:
        before, seen = 0, set()
        while (optimizer.keeps_idle_state and len(seen) < len(optimizer.parameters)) or (
            steps.dwell == 1 and not seen  # a turn that makes the state of what is always active
        ):
            seen |= set(optimizer.plan.group_at(before).parameters)
            before += steps.dwell
    peaks: dict[int, int] = {}
    for step in range(before + sweep):
        if step < before:
            training.step()
            continue
        group = active_group(training.optimizer)
        held = state_bytes(training.optimizer)["device"]
        model = training.model
        counter = LiveBytes(
            [*device_weights(model), *training.batch.values()],
            counted_elsewhere=[*state_tensors(training.optimizer), *host_weights(model)],
            base=held["optimizer_state"] + held["master"],
        )
        with counter:
            training.step()
        peaks[group] = max(counter.peak, peaks.get(group, 0))
    return peaks
