"""Checkpoints of a training as it runs: when one is written, and how the training goes on from it."""

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import lightning

from benchmark.engine.checkpoint import random_state, set_random_state
from benchmark.measure.training import Measure
from benchmark.records.spec import RunSpec
from benchmark.run.ranks import Ranks
from benchmark.run.unfinished import Unfinished


class Stateful(Protocol):
    """A part of the training whose state belongs to a checkpoint."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class Checkpoints(lightning.Callback):
    """Saves the training after the steps that `spec.checkpoint_every` says, and resumes one that is saved.

    It must be the last callback. A checkpoint is written between two steps, so it has no gradients; neither
    time nor memory of it count as training. The parts are what measures and evaluates; the rest is the
    engine's checkpoint and the position of Lightning's loop, with that of the sampler.

    Of several ranks the first decides when and writes. It has the parts of the others too if they divide the
    model, for then each measures and evaluates its own shards.
    """

    def __init__(
        self,
        unfinished: Unfinished,
        spec: RunSpec,
        trainable: Collection[str],
        measure: Measure,
        parts: Sequence[Stateful],
        ranks: Ranks,
        *,
        refused: str | None,
        note: Callable[[str], None],
    ) -> None:
        """trainable: names of the parameters that can change. refused: why this method cannot be resumed."""
        self._unfinished, self._every, self._trainable = (
            unfinished,
            spec.checkpoint_every,
            trainable,
        )
        self._measure, self._parts = measure, parts
        self._ranks, self._sharded = ranks, spec.sharded
        self._refused, self._note = refused, note
        self._random: dict[str, Any] | None = None
        self._step = 0

    def on_fit_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Resume. Lightning restores its own checkpoints right after this hook."""
        self._saved = time.monotonic()
        with self._measure.paused():
            extra = self._unfinished.resume(module.model, **_loop(trainer))
        if extra is None:
            return
        trainer.fit_loop.load_state_dict(extra["position"])
        number = self._ranks.number if self._sharded else 0
        for part, state in zip(self._parts, extra["parts"][number], strict=True):
            part.load_state_dict(state)
        self._step = trainer.global_step
        if extra["within_epoch"]:
            self._random = random_state()

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Undo that the loader has drawn a seed for its workers: within an epoch, it had done so before."""
        if self._random is not None:
            set_random_state(self._random)
            self._random = None

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._step or step == trainer.max_steps:
            return  # within a step, or after the last one
        self._step = step
        if not self._due(step):
            return
        if self._refused is not None:
            self._note(f"no checkpoints, so it starts again if it is broken off: {self._refused}")
            self._every = "never"
            return
        with self._measure.paused():
            parts = [part.state_dict() for part in self._parts]
            extra = {
                "step": step,
                "position": trainer.fit_loop.state_dict(),
                "parts": self._ranks.gather(parts) if self._sharded else [parts],
                "within_epoch": batch_idx + 1 < trainer.num_training_batches,
            }
            self._unfinished.save(module.model, self._trainable, extra, **_loop(trainer))
        self._saved = time.monotonic()

    def _due(self, step: int) -> bool:
        if isinstance(self._every, int):
            return step % self._every == 0
        if self._every == "never":
            return False
        minutes = int(self._every.removesuffix("min"))
        return self._ranks.agreed(time.monotonic() - self._saved >= 60 * minutes)


def _loop(trainer: lightning.Trainer) -> dict[str, Any]:
    """The optimizer, the scheduler and the GradScaler, as the engine's checkpoint names them."""
    return {
        "optimizer": trainer.optimizers[0],
        "scheduler": trainer.lr_scheduler_configs[0].scheduler,
        "scaler": getattr(trainer.precision_plugin, "scaler", None),
    }
