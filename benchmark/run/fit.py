"""The training of one run: Lightning's Trainer with the strategy's optimizer, Measure and Validation."""

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
from benchmark.run.checkpoints import Checkpoints
from benchmark.run.module import PRECISIONS, FineTuning
from benchmark.run.ranks import Ranks
from benchmark.run.unfinished import Trained, Unfinished
from benchmark.run.validation import Validation
from benchmark.strategies.base import TuningStrategy
from tasks.base import Adapter

Report = Callable[[dict[str, Any]], None]


class Fit:
    """The training of one model, which `strategy.prepare` has returned.

    `trainable`: names of the parameters that require a gradient. `report` is called with an event after each
    optimizer step. `unfinished` has the training of an earlier start, if there is one, and takes checkpoints.
    `ranks`: the processes that train together.
    """

    def __init__(
        self,
        spec: RunSpec,
        strategy: TuningStrategy,
        adapter: Adapter,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel,
        data: Data,
        report: Report,
        unfinished: Unfinished,
        ranks: Ranks,
    ) -> None:
        total = spec.steps(len(data.train.ids))
        self.trainable = {name for name, p in model.named_parameters() if p.requires_grad}
        self._spec, self._trains = spec, strategy.trains
        self._rows, self._collate = data.train, adapter.collator(tokenizer)
        self._part = loaders.Part(ranks.number, ranks.of)
        self._module = FineTuning(
            model, adapter, strategy, total, ranks, seed=spec.seed, sharded=spec.sharded
        )
        self._measure = Measure(
            strategy, model, lambda row: report({"event": "step", "total": total, **row}), ranks
        )
        self._validation = Validation(adapter, tokenizer, data, spec, total, self._measure)
        checkpoints = Checkpoints(
            unfinished,
            spec,
            self.trainable,
            self._measure,
            (self._measure, self._validation),
            ranks,
            refused=strategy.starts_again,
            note=lambda text: report({"event": "note", "note": text}),
        )
        self._trainer = lightning.Trainer(
            max_steps=total,
            max_epochs=-1,
            accelerator="auto",
            **ranks.trainer(),
            precision=PRECISIONS.get(spec.precision, "32-true"),
            accumulate_grad_batches=spec.accumulate,
            gradient_clip_val=spec.clip,
            callbacks=[self._measure, self._validation, checkpoints],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    @property
    def device(self) -> torch.device:
        """The device that Lightning chose for the run."""
        return self._trainer.strategy.root_device

    def train(self) -> Trained:
        """Train the model in place. Returns the measured cost and the evaluations made during training.

        A strategy that trains nothing leaves the model as it is; then only its parameters are counted. Raises
        Diverged if a loss is NaN or infinite, and torch's or Python's error if memory runs out.
        """
        if self._trains:
            batches = loaders.training_batches(self._rows, self._collate, self._spec, self._part)
            self._trainer.fit(self._module, batches)
        else:
            self._measure.observe(self.device)
        return Trained(
            train=self._measure.train(),
            params=self._measure.params(),
            memory=self._measure.memory(),
            evaluations=self._validation.evaluations,
            curve=curve_text(self._measure.curve, CURVE_COLUMNS),
        )
