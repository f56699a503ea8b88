"""Bounds from below of what a setting of HiFT needs, in a moment and without simulation."""

from benchmark.memory.roofline import sizes, streamed, waits_on_host, weight_bytes
from benchmark.memory.setting import Setting
from benchmark.optimizers import find

LOW = 2
"""Bytes of an activation in bf16; those of fp32 are not counted as more."""
INSIDE = 10
"""What a block stores of its activations takes at least as much as so many of its inputs."""
EXACT = 0.99
"""Of the estimate of state, the share that is certain."""


def state_bytes(setting: Setting) -> int:
    """Bytes of the state and masters of all groups, in closed form."""
    model, masters = sizes(setting), 4 * (setting.precision == "mixed_hi")
    optimizer = find(setting.optimizer)
    assert optimizer.state is not None, "those of search.RECIPES have a closed form"
    each = 4 if masters else weight_bytes(setting)
    state = sum(optimizer.state(shape, each, optimizer.implied) for shape in model.shapes)
    return state + masters * model.total


def on_device(setting: Setting, state: float) -> float:
    """Bytes: the weights that stay, with the larger of two moments.

    At the end of the forward pass of the lowest group there are the input of each block, what is stored
    inside it, and whole logits in fp32 with their gradient. At the update of the largest group there are its
    gradients, state and masters.
    """
    model, options = sizes(setting), setting.options
    tokens = setting.batch_size * setting.seq_len
    weights = weight_bytes(setting) * (model.total - model.streamed * streamed(setting))
    stored = 1 if setting.checkpointing else INSIDE
    stored *= 1 if waits_on_host(options) else model.blocks
    forward = LOW * tokens * model.hidden * stored
    forward += 2 * 4 * tokens * model.output // model.hidden if setting.loss == "whole" else 0
    kept = EXACT * state if options["idle"] == "keep" else 0
    largest = model.largest(setting.group_size or 1) if options["update"] == "step" else 0
    visiting = 0 if kept else EXACT * state * largest / model.total
    return weights + kept + max(forward, weight_bytes(setting) * largest + visiting)


def on_host(setting: Setting, state: float) -> float:
    """Bytes: streamed weights, and the state and masters of the groups that are not on the device."""
    model, options = sizes(setting), setting.options
    weights = weight_bytes(setting) * model.streamed * streamed(setting)
    if options["idle"] == "keep":
        return weights
    largest = model.largest(setting.group_size or 1) if options["update"] == "step" else 0
    return weights + EXACT * state * (1 - largest / model.total)
