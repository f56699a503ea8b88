"""Refuses, before data or weights are loaded, what cannot work together: strategy, task, model, precision."""

import torch
from transformers import PreTrainedTokenizerBase

from benchmark.errors import Unsupported, UserError
from benchmark.models import registry
from benchmark.models.registry import Source
from benchmark.records.spec import RunSpec
from benchmark.strategies.base import TuningStrategy
from tasks.answers import Answers
from tasks.base import Adapter

PRETRAINED_HEADS = ("causal_lm", "masked_lm")
"""Heads that are pretrained. Any other head is initialised at random, unless the checkpoint holds it."""


def check(
    spec: RunSpec,
    strategy: TuningStrategy,
    adapter: Adapter,
    source: Source,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Raises Unsupported for a combination that cannot work.

    Raises UserError if `max_length` exceeds the model's positions, or if the optimizer rejects its options.
    """
    strategy.check()
    if spec.precision == "fp16" and not torch.cuda.is_available():
        raise Unsupported(
            "fp16 needs a CUDA device; a CPU trains in fp32, bf16, bf16_weights or mixed_hi"
        )
    registry.check_head(source, adapter.head)
    if spec.loss == "chunked" and adapter.head != "causal_lm":
        raise Unsupported(
            f"loss: chunked is for causal LMs, and {spec.task} trains a head {adapter.head}: use loss: whole"
        )
    if spec.demonstrations and not adapter.prompted:
        raise Unsupported(f"demonstrations: {spec.task} has no prompt to put them before")
    if strategy.needs_answers and not (isinstance(adapter, Answers) and adapter.prompted):
        raise Unsupported(
            f"strategy {spec.strategy} needs answers to prompts, which {spec.task} does not have, but "
            "generation/gsm8k does"
        )
    pretrained = adapter.head in PRETRAINED_HEADS or registry.holds_head(source, adapter.head)
    if not strategy.trains and not pretrained:
        raise Unsupported(
            f"strategy {spec.strategy}: {spec.task} needs a head {adapter.head}, which would be new and "
            f"random on {spec.model}: train it, or name a checkpoint that holds one"
        )
    added = strategy.added_positions
    if spec.max_length + added > registry.positions(source, tokenizer):
        length = (
            f"{spec.max_length} and {added} of the strategy are"
            if added
            else f"{spec.max_length} is"
        )
        raise UserError(f"max_length: {length} more than the positions of {spec.model}")
