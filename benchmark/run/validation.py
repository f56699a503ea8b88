"""What is looked at along a training: the loss of held-out rows, scores, and which weights were the best.

The time and memory of a look are not the training's, and its random numbers neither: a run that is looked
at trains exactly as one that is not.
"""

from typing import Any

import lightning
import torch
from transformers import PreTrainedTokenizerBase

from benchmark.data.examples import Data, Rows
from benchmark.data.loaders import EvaluationOrder, batches_as_drawn
from benchmark.measure.training import Measure
from benchmark.records.record import Evaluation
from benchmark.records.spec import RunSpec
from benchmark.run.module import mean_loss, predict
from tasks.base import Adapter

POINTS = 5
"""Looks of a run that only selects: every fifth of the steps (arXiv 2305.17333, appendix E)."""


def points(spec: RunSpec, total_steps: int) -> set[int]:
    """After which optimizer steps a run is looked at."""
    if spec.eval_every is not None:
        return {*range(spec.eval_every, total_steps, spec.eval_every), total_steps}
    if spec.select != "last":
        return {-(-total_steps * i // POINTS) for i in range(1, POINTS + 1)}
    return set()


class Validation(lightning.Callback):
    """Looks at the `points` of a run; fills `seen`.

    `select: best` keeps the weights of the best held-out score, as MeZO does for RoBERTa, `best_loss` those
    of the lowest held-out loss, as it does for OPT (arXiv 2305.17333); the first of equals. One copy of what
    trains waits on the host and is put back at the end. The split that is scored in the end selects nothing.
    """

    def __init__(
        self,
        adapter: Adapter,
        tokenizer: PreTrainedTokenizerBase,
        data: Data,
        spec: RunSpec,
        total_steps: int,
        measure: Measure,
    ) -> None:
        self.seen: list[Evaluation] = []
        self._adapter, self._tokenizer, self._data, self._spec = adapter, tokenizer, data, spec
        self._collate = adapter.collator(tokenizer)
        self._measure = measure
        self._points = points(spec, total_steps)
        self._best: tuple[float, dict[str, torch.Tensor]] | None = None

    def setup(self, trainer: lightning.Trainer, module: Any, stage: str) -> None:
        """Which parameters train: asked before an optimizer freezes the groups whose turn it is not."""
        self._trained = [n for n, p in module.model.named_parameters() if p.requires_grad]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step not in self._points or (self.seen and self.seen[-1].step == step):
            return
        cuda = [module.device] if module.device.type == "cuda" else []
        with self._measure.paused(), torch.random.fork_rng(cuda):
            look = self._look(module)
            module.model.train()
            self.seen.append(look)
            if self._spec.select != "last":
                self._keep_if_best(look, module)

    @torch.no_grad()
    def on_fit_end(self, trainer: lightning.Trainer, module: Any) -> None:
        if self._best is not None:
            now = dict(module.model.named_parameters())
            for name, best in self._best[1].items():
                now[name].copy_(best)

    def _look(self, module: Any) -> Evaluation:
        held_out, spec = self._data.development, self._spec
        dev_loss = dev_score = score = None
        if held_out is not None and spec.select != "best":
            loader = batches_as_drawn(held_out, self._collate, spec.eval_batch_size)
            dev_loss, _ = mean_loss(
                module.model, self._adapter, loader, module.device, spec.precision
            )
        if held_out is not None and spec.select == "best":
            dev_score = self._score(held_out, module)
        if spec.eval_every is not None and not self._adapter.generates:
            score = self._score(self._data.evaluation, module)
        return Evaluation(
            **self._measure.so_far(), dev_loss=dev_loss, dev_score=dev_score, score=score
        )

    def _score(self, rows: Rows, module: Any) -> float:
        spec, task = self._spec, self._adapter.config
        order = EvaluationOrder(rows, spec.eval_batch_size)
        loader = order.batches(self._collate)
        in_order = predict(
            module.model, self._adapter, loader, self._tokenizer, module.device, spec.precision
        )
        scores = self._adapter.score(order.in_row_order(in_order), rows.references)
        return scores[task.main_key]

    def _keep_if_best(self, look: Evaluation, module: Any) -> None:
        found = look.dev_loss if self._spec.select == "best_loss" else look.dev_score
        assert found is not None
        lower = self._spec.select == "best_loss" or not self._adapter.config.higher_is_better
        value = -found if lower else found
        if self._best is None or value > self._best[0]:
            now = dict(module.model.named_parameters())
            copies = {n: now[n].detach().to("cpu", copy=True) for n in self._trained}
            self._best = value, copies
