"""Evaluation during training: held-out loss, scores, and the choice of the best weights.

The time and memory of an evaluation do not count as training. It draws no random numbers from the training's
generators, so a run with evaluations trains exactly like one without them.
"""

import dataclasses
from typing import Any

import lightning
import torch
from transformers import PreTrainedTokenizerBase

from benchmark.data.examples import Data, Rows
from benchmark.data.loaders import EvaluationOrder, batches_as_drawn
from benchmark.engine.sharded import local
from benchmark.measure.training import Measure
from benchmark.records.record import Evaluation
from benchmark.records.spec import RunSpec
from benchmark.run.module import mean_loss, predict
from tasks.base import Adapter

POINTS = 5
"""Evaluations in a run with `select` but no `eval_every`: one after each fifth of the steps
(arXiv 2305.17333, appendix E)."""


def points(spec: RunSpec, total_steps: int) -> set[int]:
    """The optimizer steps after which a run is evaluated; empty without `eval_every` and `select`."""
    if spec.eval_every is not None:
        return {*range(spec.eval_every, total_steps, spec.eval_every), total_steps}
    if spec.select != "last":
        return {-(-total_steps * i // POINTS) for i in range(1, POINTS + 1)}
    return set()


class Validation(lightning.Callback):
    """Evaluates the model after each step of `points`. `evaluations`: the results, in the order of the steps.

    `select: best` ends training with the weights of the best held-out score, as MeZO does for RoBERTa.
    `select: best_loss` ends it with those of the lowest held-out loss, as MeZO does for OPT
    (arXiv 2305.17333). On a tie the earliest weights win. One copy of the trained parameters is stored on the
    host, of a model in shards that of this rank's part. The evaluation split never decides which weights are
    chosen.
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
        self.evaluations: list[Evaluation] = []
        self._adapter, self._tokenizer, self._data, self._spec = adapter, tokenizer, data, spec
        self._collate = adapter.collator(tokenizer)
        self._measure = measure
        self._points = points(spec, total_steps)
        self._best: tuple[float, dict[str, torch.Tensor]] | None = None

    def setup(self, trainer: lightning.Trainer, module: Any, stage: str) -> None:
        """Note the names of the trained parameters, before HiFT's optimizer freezes the inactive groups."""
        self._trained = [n for n, p in module.model.named_parameters() if p.requires_grad]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        done = self.evaluations and self.evaluations[-1].step == step
        if step not in self._points or done:
            return
        cuda = [module.device] if module.device.type == "cuda" else []
        with self._measure.paused(), torch.random.fork_rng(cuda):
            evaluation = self._evaluate(module)
            module.model.train()
            self.evaluations.append(evaluation)
            if self._spec.select != "last":
                self._copy_if_best(evaluation, module)

    @torch.no_grad()
    def on_fit_end(self, trainer: lightning.Trainer, module: Any) -> None:
        if self._best is not None:
            parameters = dict(module.model.named_parameters())
            for name, best in self._best[1].items():
                local(parameters[name]).copy_(best)

    def state_dict(self) -> dict[str, Any]:
        """The evaluations so far, and the best weights (Lightning's protocol of a callback)."""
        done = [dataclasses.asdict(evaluation) for evaluation in self.evaluations]
        return {"evaluations": done, "best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.evaluations = [Evaluation(**fields) for fields in state_dict["evaluations"]]
        self._best = state_dict["best"]

    def _evaluate(self, module: Any) -> Evaluation:
        """The losses and scores that the spec asks for, with the model's weights at this step."""
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
        """The task's main score on `rows`."""
        spec, task = self._spec, self._adapter.config
        order = EvaluationOrder(rows, spec.eval_batch_size)
        loader = order.batches(self._collate)
        predicted = predict(
            module.model, self._adapter, loader, self._tokenizer, module.device, spec.precision
        )
        scores = self._adapter.score(order.in_row_order(predicted), rows.references)
        return scores[task.main_key]

    def _copy_if_best(self, evaluation: Evaluation, module: Any) -> None:
        """Copy the trained parameters to the host if this evaluation is better than all before it."""
        by_loss = self._spec.select == "best_loss"
        value = evaluation.dev_loss if by_loss else evaluation.dev_score
        assert value is not None
        lower_is_better = by_loss or not self._adapter.config.higher_is_better
        goodness = -value if lower_is_better else value
        if self._best is None or goodness > self._best[0]:
            parameters = dict(module.model.named_parameters())
            parts = {name: local(parameters[name]).detach() for name in self._trained}
            copies = {name: part.to("cpu", copy=True) for name, part in parts.items()}
            self._best = goodness, copies
