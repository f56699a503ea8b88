"""Activation checkpointing, by the name that the installed transformers has for it."""

from typing import Any


def recompute_activations(model: Any) -> None:
    """Let every block of a transformers model recompute its activations in the backward pass.

    Frozen blocks below a trained one work too, since checkpointing is not the reentrant kind.
    """
    name = "activation_checkpointing_enable"  # as transformers 5.20 calls it
    enable = getattr(model, name, None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
