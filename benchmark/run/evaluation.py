"""The final evaluation of a run: predictions, their scores and the peak memory.

Each batch of predictions is saved as soon as it is computed, so a killed evaluation can continue.
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
"""Name and version of the metric of a trial that is scored by its held-out loss."""


@dataclass(frozen=True)
class Evaluated:
    """The result of an evaluation. `peak` is its peak memory in bytes.

    `predictions` and `peak` are None if only the loss was computed (`score_on: dev_loss`).
    """

    scores: Scores
    predictions: Predictions | None
    peak: int | None


def evaluate(
    model: PreTrainedModel,
    adapter: Adapter,
    tokenizer: PreTrainedTokenizerBase,
    data: Data,
    spec: RunSpec,
    *,
    device: torch.device,
    unfinished: Unfinished,
) -> Evaluated:
    """Score the model on the rows that `spec.score_on` names: the evaluation split or the held-out rows.

    With "dev_loss" the score is the mean loss of the held-out rows. Raises Diverged if this loss, and
    NotFinite if a score, is NaN or infinite.
    """
    rows = data.evaluation if spec.score_on == "eval" else data.development
    assert rows is not None
    if spec.score_on == "dev_loss":
        batches = loaders.batches_as_drawn(rows, adapter.collator(tokenizer), spec.eval_batch_size)
        loss, error = mean_loss(model, adapter, batches, device, spec.precision)
        scores = Scores(
            main=loss,
            metric="loss",
            metric_version=LOSS,
            higher_is_better=False,
            split=rows.split,
            n=len(rows.ids),
            all={"loss": loss},
            stderr=error,
        )
        return Evaluated(scores, None, None)
    predicted, peak = predictions(
        model, adapter, tokenizer, rows, spec, device=device, unfinished=unfinished
    )
    task, by_metric = adapter.config, adapter.score(predicted, rows.references)
    per_example = adapter.per_example(predicted, rows.references)
    scores = Scores(
        main=by_metric[task.main_key],
        metric=task.main_key,
        metric_version=task.main_version,
        higher_is_better=task.higher_is_better,
        split=rows.split,
        n=len(predicted),
        all=by_metric,
        stderr=standard_error(per_example),
    )
    stored = Predictions(
        ids=rows.ids, predictions=predicted, references=rows.references, scores=per_example
    )
    return Evaluated(scores, stored, peak)


def predictions(
    model: PreTrainedModel,
    adapter: Adapter,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    spec: RunSpec,
    *,
    device: torch.device,
    unfinished: Unfinished,
) -> tuple[list[Any], int]:
    """Predictions in the order of `rows`, and the peak memory of the evaluation in bytes.

    Batches that `unfinished` has from an earlier start are not computed again. Only the return values of
    `adapter.predict` are stored, so the logits of earlier batches take no memory.
    """
    order = loaders.EvaluationOrder(rows, spec.eval_batch_size)
    ids = order.ids()
    scored = unfinished.scored(ids)
    ready(model, device)
    peak = _Peak(model, device, scored[-1].peak if scored else 0)
    remaining = order.batches(adapter.collator(tokenizer), start=len(scored))
    for batch_ids, batch in zip(ids[len(scored) :], remaining, strict=True):
        batch = on(device, batch)
        with peak.around(batch):
            predicted = predict_batch(model, adapter, batch, tokenizer, spec.precision)
        scored.append(Scored(ids=batch_ids, predictions=predicted, peak=peak.bytes))
        unfinished.add(scored[-1])
    in_batch_order = [prediction for batch in scored for prediction in batch.predictions]
    return order.in_row_order(in_batch_order), peak.bytes


class _Peak:
    """`bytes`: the peak memory of the weights, a batch and the tensors computed from them.

    On a CUDA device, memory that training still occupies, such as optimizer state, is subtracted. On a CPU
    only the first batch is counted, because counting costs about 10 µs an operation; it is the longest.
    """

    def __init__(self, model: torch.nn.Module, device: torch.device, earlier: int) -> None:
        """`earlier`: the peak, in bytes, of the batches that an earlier start scored; 0 if there are none."""
        self.bytes = earlier
        self._cuda = device.type == "cuda"
        self._device = device
        self._resident = [*model.parameters(), *model.buffers()]
        if self._cuda:
            weights = sum(tensor.nbytes for tensor in self._resident)
            self._training_bytes = torch.cuda.memory_allocated(device) - weights
            torch.cuda.reset_peak_memory_stats(device)

    @contextlib.contextmanager
    def around(self, batch: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Context for the computation of one batch, which updates `bytes`."""
        if self._cuda:
            yield
            peak = torch.cuda.max_memory_allocated(self._device) - self._training_bytes
            self.bytes = max(self.bytes, peak)
        elif self.bytes:
            yield
        else:
            with LiveBytes([*self._resident, *batch.values()]) as counter:
                yield
            self.bytes = counter.peak
