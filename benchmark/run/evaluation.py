"""What a trained model is worth: its predictions and their scores, and what they cost in memory.

Predictions come batch by batch, each kept as it comes.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmark.data import loaders
from benchmark.data.examples import Data, Rows
from benchmark.measure.live_bytes import LiveBytes
from benchmark.records.predictions import Predictions
from benchmark.records.record import Scores
from benchmark.records.spec import RunSpec
from benchmark.run.module import mean_loss, on, predict_batch, ready
from benchmark.run.unfinished import Scored, Unfinished
from tasks.base import Adapter
from tasks.metrics import standard_error

LOSS = "loss@1"
"""The metric of a trial that goes by the loss, with its version."""


@dataclass(frozen=True)
class Evaluated:
    """`predictions` and `peak`, the evaluation's own in bytes, are None where only the loss was asked for."""

    scores: Scores
    predictions: Predictions | None
    peak: int | None


def evaluate(
    model: PreTrainedModel,
    adapter: Adapter,
    tokenizer: PreTrainedTokenizerBase,
    rows: Data,
    spec: RunSpec,
    *,
    device: torch.device,
    kept: Unfinished,
) -> Evaluated:
    """Score the model on the part of `rows` that `spec.score_on` names; with "dev_loss" by the mean loss of
    the held-out rows. Raises Diverged or NotFinite for a model that gives no number."""
    scored = rows.evaluation if spec.score_on == "eval" else rows.development
    assert scored is not None
    if spec.score_on == "dev_loss":
        batches = loaders.batches_as_drawn(
            scored, adapter.collator(tokenizer), spec.eval_batch_size
        )
        loss, error = mean_loss(model, adapter, batches, device, spec.precision)
        scores = Scores(
            main=loss,
            metric="loss",
            metric_version=LOSS,
            higher_is_better=False,
            split=scored.split,
            n=len(scored.ids),
            all={"loss": loss},
            stderr=error,
        )
        return Evaluated(scores, None, None)
    found, peak = predictions(model, adapter, tokenizer, scored, spec, device=device, kept=kept)
    task, names = adapter.config, adapter.score(found, scored.references)
    of_examples = adapter.per_example(found, scored.references)
    scores = Scores(
        main=names[task.main_key],
        metric=task.main_key,
        metric_version=task.main_version,
        higher_is_better=task.higher_is_better,
        split=scored.split,
        n=len(found),
        all=names,
        stderr=standard_error(of_examples),
    )
    lines = Predictions(
        ids=scored.ids, predictions=found, references=scored.references, scores=of_examples
    )
    return Evaluated(scores, lines, peak)


def predictions(
    model: PreTrainedModel,
    adapter: Adapter,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    spec: RunSpec,
    *,
    device: torch.device,
    kept: Unfinished,
) -> tuple[list[Any], int]:
    """Predictions in the order of `rows`, and the evaluation's own peak in bytes.

    Goes on after the batches that `kept` has of an earlier start. Only what `adapter.predict` returns is
    held, so memory does not grow with the logits of the split.
    """
    order = loaders.EvaluationOrder(rows, spec.eval_batch_size)
    ids = order.ids()
    scored = kept.scored(ids)
    ready(model, device)
    peak = _Peak(model, device, scored[-1].peak if scored else 0)
    left = order.batches(adapter.collator(tokenizer), start=len(scored))
    for of_batch, batch in zip(ids[len(scored) :], left, strict=True):
        batch = on(device, batch)
        with peak.around(batch):
            found = predict_batch(model, adapter, batch, tokenizer, spec.precision)
        scored.append(Scored(ids=of_batch, predictions=found, peak=peak.bytes))
        kept.add(scored[-1])
    in_order = [prediction for batch in scored for prediction in batch.predictions]
    return order.in_row_order(in_order), peak.bytes


class _Peak:
    """Peak bytes of weights, batch and what is made of them; the optimizer state of a training that still
    waits on the device is not the evaluation's.

    On a CPU the first batch is counted alone, which is the longest: counting costs about 10 µs an operation.
    """

    def __init__(self, model: torch.nn.Module, device: torch.device, so_far: int) -> None:
        self.bytes = so_far
        self._cuda = device.type == "cuda"
        self._device = device
        self._resident = [*model.parameters(), *model.buffers()]
        if self._cuda:
            weights = sum(tensor.nbytes for tensor in self._resident)
            self._elsewhere = torch.cuda.memory_allocated(device) - weights
            torch.cuda.reset_peak_memory_stats(device)

    @contextlib.contextmanager
    def around(self, batch: Mapping[str, torch.Tensor]) -> Iterator[None]:
        if self._cuda:
            yield
            peak = torch.cuda.max_memory_allocated(self._device) - self._elsewhere
            self.bytes = max(self.bytes, peak)
        elif self.bytes:
            yield
        else:
            with LiveBytes([*self._resident, *batch.values()]) as counter:
                yield
            self.bytes = counter.peak
