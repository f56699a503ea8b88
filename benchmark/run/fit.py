"""The training of one run: Lightning's trainer over the strategy's optimizer, measured and looked at."""

from collections.abc import Callable
from typing import Any

import lightning
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmark.data import loaders
from benchmark.data.examples import Data
from benchmark.measure.training import CURVE_COLUMNS, Measure
from benchmark.records.record import curve_text
from benchmark.records.spec import RunSpec
from benchmark.run.module import PRECISIONS, FineTuning
from benchmark.run.unfinished import Trained
from benchmark.run.validation import Validation
from benchmark.strategies.base import TuningStrategy
from tasks.base import Adapter

Report = Callable[[dict[str, Any]], None]


class Fit:
    """A prepared model on its way through `train`; `trainable` are the names of the parameters that train."""

    def __init__(
        self,
        spec: RunSpec,
        strategy: TuningStrategy,
        adapter: Adapter,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel,
        data: Data,
        report: Report,
    ) -> None:
        total = spec.steps(len(data.train.ids))
        self.trainable = {name for name, p in model.named_parameters() if p.requires_grad}
        self._spec, self._trains, self._model = spec, strategy.trains, model
        self._rows, self._collate = data.train, adapter.collator(tokenizer)
        self._module = FineTuning(model, adapter, strategy, total)
        self._measure = Measure(lambda row: report({"event": "step", "total": total, **row}))
        self._validation = Validation(adapter, tokenizer, data, spec, total, self._measure)
        self._trainer = lightning.Trainer(
            max_steps=total,
            max_epochs=-1,
            accelerator="auto",
            devices=1,
            precision=PRECISIONS.get(spec.precision, "32-true"),
            accumulate_grad_batches=spec.accumulate,
            gradient_clip_val=spec.clip,
            callbacks=[self._measure, self._validation],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    @property
    def device(self) -> torch.device:
        """Where the run computes."""
        return self._trainer.strategy.root_device

    def train(self) -> Trained:
        """Fit the model in place; where nothing trains, look at it as it is. Returns what that cost.

        Raises Diverged for a loss that is no number, and whatever a device raises that has no memory left.
        """
        if self._trains:
            batches = loaders.training_batches(self._rows, self._collate, self._spec)
            self._trainer.fit(self._module, batches)
        else:
            self._measure.observe(self._model, self.device)
        return Trained(
            train=self._measure.train(),
            params=self._measure.params(),
            memory=self._measure.memory(),
            evaluations=self._validation.seen,
            curve=curve_text(self._measure.curve, CURVE_COLUMNS),
        )
