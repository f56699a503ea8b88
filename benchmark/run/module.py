"""The Lightning module of a run, and predictions and loss of a model. No task or strategy is named here.

Predictions are made under no_grad and not in inference mode: there autocast misses the operations inside
composite ones, such as einsum's products, while LiveBytes counts.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Self

import lightning
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmark.engine.sharded import has_shards
from benchmark.measure.training import Diverged, examples_in
from benchmark.models.precision import autocast
from benchmark.run.ranks import Ranks
from benchmark.run.shards import Shards
from benchmark.strategies.base import TuningStrategy
from tasks.base import Adapter

PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "bf16_weights": "bf16-mixed",
    "fp16": "16-mixed",
}
"""RunSpec.precision -> Lightning's. For other values Lightning uses 32-true; the strategy does the rest."""


class FineTuning(lightning.LightningModule):
    """A model, the adapter of its task and its tuning strategy, for Lightning's Trainer on `ranks`.

    Lightning does gradient accumulation, clipping and mixed precision (automatic optimization). The scheduler
    is stepped once per optimizer step. With `sharded` the ranks divide the model while it trains.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        adapter: Adapter,
        strategy: TuningStrategy,
        total_steps: int,
        ranks: Ranks,
        seed: int,
        sharded: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.adapter = adapter
        self.tuning = strategy
        self.total_steps = total_steps
        self.ranks, self._seed, self._sharded = ranks, seed, sharded
        self._shards: Shards | None = None
        self._after_backward: Callable[[], None] = lambda: None

    def setup(self, stage: str) -> None:
        """Divide the model, before it moves to the device and its optimizer is built."""
        if self._sharded:
            device = self.trainer.strategy.root_device
            self._shards = Shards(self.model, self.ranks.of, device)

    def cpu(self) -> Self:
        """What Lightning does when the training ends. Shards stay where they are until they are gathered."""
        return super().cpu() if self._shards is None else self

    def on_fit_end(self) -> None:
        """Make it whole, once the callbacks have seen the end of the training."""
        if self._shards is not None:
            self._shards.gather()

    def training_step(self, batch: Mapping[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        weight = self.adapter.weight(batch) if examples_in(batch) else 0
        batch = self.tuning.batch(batch)
        with self.ranks.draws(self._seed, self.trainer.fit_loop.total_batch_idx):
            loss = self.tuning.loss(self.model, lambda: self.adapter.loss(self.model, batch))
        return self.ranks.weighted(loss, weight)

    def on_after_backward(self) -> None:
        self._after_backward()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and free the gradients, as the usual loop in plain torch does.

        Lightning would keep them through the next forward pass, on top of its activations: those of all
        parameters in full fine-tuning, and none in HiFT, whose switch to the next group frees them.
        """
        super().optimizer_step(*args, **kwargs)
        self.trainer.optimizers[0].zero_grad()

    def configure_optimizers(self) -> Any:
        optimizer, scheduler = self.tuning.optimizer(self.model, self.total_steps)
        self._after_backward = self.ranks.averaging(optimizer, self.model)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def ready(model: torch.nn.Module, device: torch.device) -> None:
    """Move the model to the device and switch it to eval mode (no dropout)."""
    if not has_shards(model):  # they are there, and cannot be moved once they have an optimizer
        model.to(device)
    model.eval()


def predict(
    model: PreTrainedModel,
    adapter: Adapter,
    loader: Any,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    precision: str = "fp32",
) -> list[Any]:
    """Predictions for all batches, in the order of the loader. Leaves the model in eval mode."""
    ready(model, device)
    predictions: list[Any] = []
    for batch in loader:
        predictions += predict_batch(model, adapter, on(device, batch), tokenizer, precision)
    return predictions


@torch.no_grad()
def mean_loss(
    model: PreTrainedModel,
    adapter: Adapter,
    loader: Iterable[Mapping[str, torch.Tensor]],
    device: torch.device,
    precision: str = "fp32",
) -> tuple[float, float | None]:
    """The mean training loss over the batches, and its standard error.

    The mean weights each batch by its number of examples, as in transformers' Trainer. The standard error is
    computed from the batches as large as the first; it assumes that rows are in random order. It is None with
    fewer than two such batches. Raises Diverged if the mean is NaN or infinite.
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
    full = [loss for loss, size in zip(losses, sizes, strict=True) if size == sizes[0]]
    error = statistics.stdev(full) / math.sqrt(len(full)) if len(full) > 1 else None
    return mean, error


def on(device: torch.device, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch's tensors on the device."""
    return {name: tensor.to(device) for name, tensor in batch.items()}


@torch.no_grad()
def predict_batch(
    model: PreTrainedModel,
    adapter: Adapter,
    batch: Mapping[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    precision: str,
) -> list[Any]:
    """The predictions of `adapter.predict` for one batch on the model's device, computed in `precision`."""
    with autocast(precision, batch["input_ids"].device):
        return adapter.predict(model, batch, tokenizer)
