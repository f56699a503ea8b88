"""The Lightning module: a model, its task's adapter and its tuning strategy. Knows neither by name."""

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import lightning
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmark.measure.training import Diverged, examples_in
from benchmark.models.precision import autocast
from benchmark.strategies.base import TuningStrategy
from tasks.base import Adapter

PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}
"""RunSpec.precision -> Lightning's; what is not here the strategy does itself on a 32-true trainer."""


class FineTuning(lightning.LightningModule):
    """Automatic optimization with one optimizer and a scheduler stepped once per optimizer step, so that
    accumulation, clipping and mixed precision are Lightning's own."""

    def __init__(
        self, model: PreTrainedModel, adapter: Adapter, strategy: TuningStrategy, total_steps: int
    ) -> None:
        super().__init__()
        self.model = model
        self.adapter = adapter
        self.tuning = strategy
        self.total_steps = total_steps

    def training_step(self, batch: Mapping[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.adapter.loss(self.model, batch)

    def configure_optimizers(self) -> Any:
        optimizer, scheduler = self.tuning.optimizer(self.model, self.total_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def ready(model: torch.nn.Module, device: torch.device) -> None:
    """Put the model on the device, for evaluation: no dropout."""
    model.to(device).eval()


def predict(
    model: PreTrainedModel,
    adapter: Adapter,
    loader: Any,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    precision: str = "fp32",
) -> list[Any]:
    """Predictions in the loader's order."""
    ready(model, device)
    predictions: list[Any] = []
    for batch in loader:
        predictions += predict_batch(model, adapter, on(device, batch), tokenizer, precision)
    return predictions


@torch.inference_mode()
def mean_loss(
    model: PreTrainedModel,
    adapter: Adapter,
    loader: Iterable[Mapping[str, torch.Tensor]],
    device: torch.device,
    precision: str = "fp32",
) -> tuple[float, float | None]:
    """The training loss over the loader's batches, weighted by their examples as in transformers' Trainer,
    and its standard error.

    The error is that of the mean over batches, so the batches must be alike: equally large, in random
    order. None where there are fewer than two. Raises Diverged for a loss that is no number.
    """
    ready(model, device)
    losses, sizes = [], []
    for batch in loader:
        with autocast(precision, device):
            losses.append(float(adapter.loss(model, on(device, batch))))
        sizes.append(examples_in(batch))
    mean = statistics.fmean(losses, sizes)
    if not math.isfinite(mean):
        raise Diverged(f"the loss of the held-out rows is {mean}")
    whole = [loss for loss, size in zip(losses, sizes, strict=True) if size == sizes[0]]
    error = statistics.stdev(whole) / math.sqrt(len(whole)) if len(whole) > 1 else None
    return mean, error


def on(device: torch.device, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch's tensors on the device."""
    return {name: tensor.to(device) for name, tensor in batch.items()}


@torch.inference_mode()
def predict_batch(
    model: PreTrainedModel,
    adapter: Adapter,
    batch: Mapping[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    precision: str,
) -> list[Any]:
    """What `adapter.predict` says of one batch, computed in the precision of the training."""
    with autocast(precision, batch["input_ids"].device):
        return adapter.predict(model, batch, tokenizer)
