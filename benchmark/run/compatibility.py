"""Refuses, before data or weights are loaded, what cannot work together: strategy, task, model, precision."""

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from benchmark.errors import Unsupported
from benchmark.models import facts, layers, registry
from benchmark.models.registry import Source
from benchmark.records.spec import RunSpec
from benchmark.strategies.base import TuningStrategy
from tasks.answers import Answers
from tasks.base import Adapter


def check(
    spec: RunSpec,
    strategy: TuningStrategy,
    adapter: Adapter,
    source: Source,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Raises Unsupported for a combination that cannot work.

    Raises UserError if `max_length` exceeds the model's positions, if the optimizer rejects its options, or
    if the strategy's name or count layers that the model does not have.
    """
    strategy.check()
    facts.check_device(spec.precision, torch.cuda.is_available())
    facts.check_devices(spec.devices, torch.cuda.device_count())
    of_model = registry.facts(source, tokenizer)
    facts.check_head(of_model, adapter.head)
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
    facts.check(
        of_model,
        task=spec.task,
        head=adapter.head,
        strategy=spec.strategy,
        trains=strategy.trains,
        max_length=spec.max_length,
        added=strategy.added_positions,
    )
    folder = Path(source.location)
    if (
        source.kind != "hub"
        and folder.is_dir()
        and (of_folder := layers.of_folder(spec.model, folder))
    ):
        strategy.check_layers(of_folder)
