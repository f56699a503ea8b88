"""The state of a run that has no record yet, so that a run that is broken off goes on from there.

It is a folder with up to three files:
`checkpoint.pt`: the training after some step, or its result: the trained parameters and what they cost (52 GB
for all parameters of a 13B model in fp32, and three times that with AdamW's state within the training);
`resumed`: a line for each time that the run went on, with the step from which it did;
`predictions.jsonl`: one line per scored batch.
The folder is removed once the record is written.
"""

import dataclasses
import json
import os
import shutil
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmark.engine import checkpoint
from benchmark.engine.sharded import has_shards
from benchmark.errors import UserError
from benchmark.records import jsonfile
from benchmark.records.record import Evaluation, Memory, Params, Train


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The measured cost of a training and the evaluations during it. `curve`: the training curve as CSV."""

    train: Train
    params: Params
    memory: Memory
    evaluations: list[Evaluation]
    curve: str


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One scored batch: the hash and prediction of each example, and the evaluation's peak bytes so far."""

    ids: list[Any]
    predictions: list[Any]
    peak: int


class Unfinished:
    """The folder of one run. With `folder` None nothing is saved.

    identity: plain data that decides the outcome of the run, by what it is called in messages. A state that
    was saved under another identity, or is damaged, is removed and not used, which `note` tells. Without
    `writes` the folder is read alone.
    resumed_from: the steps from which this run went on, one for each time.
    """

    def __init__(
        self,
        folder: Path | None,
        identity: Mapping[str, Any],
        note: Callable[[str], None] = lambda text: None,
        writes: bool = True,
    ) -> None:
        self.resumed_from: list[int] = []
        self._folder, self._identity, self._note = folder, dict(identity), note
        self._writes = writes
        self._training: dict[str, Any] | None = None

    def restore(self, model: torch.nn.Module) -> Trained | None:
        """The result of a training that ended; its weights replace those of `model`. None if there is none.

        A parameter takes the dtype in which it was saved. A training that did not end waits for `resume`.
        """
        content = self._read()
        if content is None:
            return None
        if "trained" not in content["extra"]:
            self._training = content
            return None
        trained = jsonfile.build(Trained, content["extra"]["trained"], self._checkpoint)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for name, tensor in content["model"].items():
            parameters[name].data = tensor.to(parameters[name].device)
        self._went_on(trained.train.steps)
        return trained

    def resume(self, model: torch.nn.Module, **loop: Any) -> dict[str, Any] | None:
        """Restore the training that `restore` found; returns the `extra` of `save`. None if there is none.

        loop: optimizer, scheduler and scaler, as in `engine.checkpoint.restore`.
        """
        content, self._training = self._training, None
        if content is None:
            return None
        extra: dict[str, Any] = checkpoint.restore(content, model, **loop)
        self._went_on(extra["step"])
        return extra

    def save(
        self, model: torch.nn.Module, names: Collection[str], extra: Mapping[str, Any], **loop: Any
    ) -> None:
        """Save a training between two steps. `names`: the parameters that can change.

        extra: "step", and whatever else `resume` shall return. If writing fails, as on a full disk, the last
        checkpoint stays and the training goes on. Every rank of a model in shards must call it.
        """
        if self._folder is None or not (self._writes or has_shards(model)):
            return
        try:
            checkpoint.save(
                self._checkpoint,
                model,
                only=_changing(model, names),
                gradients=False,
                extra={**extra, "identity": self._identity},
                **loop,
            )
        except (OSError, RuntimeError) as error:  # RuntimeError: torch's, for a full disk
            self._note(f"no checkpoint after step {extra['step']}: {_line(error)}")

    def keep(self, trained: Trained, model: torch.nn.Module, names: Collection[str]) -> None:
        """Save a training that ended: its cost, the parameters in `names`, and every one that is not fp32."""
        if self._folder is None:
            return
        changing = _changing(model, names)
        weights = {
            name: p.detach()
            for name, p in model.named_parameters(remove_duplicate=False)
            if name in changing
        }
        extra = {"identity": self._identity, "trained": dataclasses.asdict(trained)}
        try:
            checkpoint.write(self._checkpoint, {"model": weights, "extra": extra})
        except (OSError, RuntimeError) as error:
            self._give_up(error)

    def _read(self) -> dict[str, Any] | None:
        """The checkpoint, if it is whole and of this run; else the folder is removed."""
        if self._folder is None or not self._folder.exists():
            return None
        if self._writes:
            for left in self._folder.glob(".*.tmp"):  # a process was killed while it wrote
                left.unlink(missing_ok=True)
        try:
            if not self._checkpoint.exists():
                raise UserError(f"{self._folder} holds no checkpoint")
            content = checkpoint.read(self._checkpoint)
            saved = content["extra"]["identity"]
            other = [name for name, value in self._identity.items() if saved.get(name) != value]
            if other:
                raise UserError(f"{self._checkpoint} was made with other {' and '.join(other)}")
        except (UserError, OSError, KeyError, TypeError, AttributeError) as error:
            self._note(f"the run starts again: {_line(error)}")
            self.remove()
            return None
        return content

    def _went_on(self, step: int) -> None:
        assert self._folder is not None
        if not self._writes:
            return
        path = self._folder / "resumed"
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{step}\n")
        self.resumed_from = list(map(int, path.read_text(encoding="utf-8").split()))

    @property
    def _checkpoint(self) -> Path:
        assert self._folder is not None
        return self._folder / "checkpoint.pt"

    def scored(self, batches: Iterable[list[str]]) -> list[Scored]:
        """The batches that an earlier start has scored: a prefix of `batches`, which hold example hashes.

        Cuts an incomplete last line off the file, so that `add` appends after a complete one.
        """
        if self._folder is None or not self._predictions.exists():
            return []
        scored, complete_bytes = [], 0
        with open(self._predictions, "rb") as file:
            for ids, line in zip(batches, file, strict=False):
                batch = _parsed(line)
                if batch is None or batch.ids != ids:
                    break
                scored.append(batch)
                complete_bytes += len(line)
        os.truncate(self._predictions, complete_bytes)
        return scored

    def add(self, batch: Scored) -> None:
        """Save one more batch.

        If that fails, the evaluation continues and saves nothing more. The disk may be full, or an orphaned
        process of the same run may have removed the folder.
        """
        if self._folder is None:
            return
        try:
            with open(self._predictions, "a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(batch)) + "\n")
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Warn, remove the folder and save nothing from here on."""
        warnings.warn(f"an interrupted evaluation will start anew: {error}", stacklevel=3)
        self.remove()
        self._folder = None

    def remove(self) -> None:
        """Remove the folder."""
        if self._folder is not None and self._writes:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _predictions(self) -> Path:
        assert self._folder is not None
        return self._folder / "predictions.jsonl"


def _parsed(line: bytes) -> Scored | None:
    """The batch in a line of `predictions.jsonl`; None if the line is incomplete."""
    try:
        return Scored(**json.loads(line)) if line.endswith(b"\n") else None
    except (ValueError, TypeError):
        return None


def _changing(model: torch.nn.Module, names: Collection[str]) -> set[str]:
    """The names, all of a tied parameter's, of the parameters that can differ from those loaded: those in
    `names`, and those that were lowered to 16 bits."""
    own = {id(p) for n, p in model.named_parameters() if n in names or p.dtype != torch.float32}
    every = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in every if id(parameter) in own}


def _line(error: Exception) -> str:
    """The message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
