"""`select: best`: keep the weights that score best on the held-out slice of train, as MeZO's tables do
(arXiv 2305.17333: the best checkpoint, one every fifth of the steps). The split that is scored in the end
is never looked at.
"""

from typing import Any

import lightning
import torch
from transformers import PreTrainedTokenizerBase

from benchmark.data import Rows
from benchmark.loaders import evaluation_batches, row_order
from benchmark.measure import Measure
from benchmark.module import predict
from benchmark.spec import RunSpec
from tasks.base import Adapter

POINTS = 5


class KeepBest(lightning.Callback):
    """Scores at POINTS evenly spaced steps, the last one included; puts the best weights back at the end.

    Holds one copy, on the host, of the parameters that train. Its time and memory stay out of `measure`.
    """

    def __init__(
        self,
        adapter: Adapter,
        tokenizer: PreTrainedTokenizerBase,
        rows: Rows,
        spec: RunSpec,
        total_steps: int,
        measure: Measure,
    ) -> None:
        self.scores: dict[int, float] = {}
        self._adapter, self._tokenizer = adapter, tokenizer
        collate = adapter.collator(tokenizer)
        self._loader = evaluation_batches(rows, collate, spec.eval_batch_size)
        self._rows, self._precision = rows, spec.precision
        self._points = {-(-total_steps * i // POINTS) for i in range(1, POINTS + 1)}
        self._measure = measure
        self._best: tuple[float, dict[str, torch.Tensor]] | None = None

    def setup(self, trainer: lightning.Trainer, module: Any, stage: str) -> None:
        """Which parameters train: asked before an optimizer freezes the groups whose turn it is not."""
        self._trained = [n for n, p in module.model.named_parameters() if p.requires_grad]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step not in self._points or trainer.global_step in self.scores:
            return
        with self._measure.paused():
            in_order = predict(
                module.model,
                self._adapter,
                self._loader,
                self._tokenizer,
                module.device,
                self._precision,
            )
            module.model.train()
        predictions = row_order(self._rows, in_order)
        task = self._adapter.config
        score = self._adapter.score(predictions, self._rows.references)[task.main_key]
        self.scores[trainer.global_step] = score
        value = score if task.higher_is_better else -score
        if self._best is None or value > self._best[0]:
            now = dict(module.model.named_parameters())
            copies = {n: now[n].detach().to("cpu", copy=True) for n in self._trained}
            self._best = value, copies

    @torch.no_grad()
    def on_fit_end(self, trainer: lightning.Trainer, module: Any) -> None:
        assert self._best is not None
        now = dict(module.model.named_parameters())
        for name, best in self._best[1].items():
            now[name].copy_(best)
