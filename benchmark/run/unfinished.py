"""The state of a run between the end of training and its record, so that a killed evaluation can continue.

It is a folder with three files:
`weights.safetensors`: the trained parameters (52 GB for all parameters of a 13B model in fp32);
`trained.json`: the inputs of the run and the cost of its training;
`predictions.jsonl`: one line per scored batch.
The folder is removed once the record is written.
"""

import dataclasses
import json
import os
import shutil
import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from benchmark.files import write_text
from benchmark.records import jsonfile
from benchmark.records.record import Evaluation, Inputs, Memory, Params, Train


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The measured cost of a training and the evaluations during it. `curve`: the training curve as CSV."""

    train: Train
    params: Params
    memory: Memory
    evaluations: list[Evaluation]
    curve: str


@dataclass(frozen=True, kw_only=True)
class _Saved:
    """The content of `trained.json`."""

    inputs: Inputs
    trained: Trained


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One scored batch: the hash and prediction of each example, and the evaluation's peak bytes so far."""

    ids: list[Any]
    predictions: list[Any]
    peak: int


class Unfinished:
    """The folder of one run. With `folder` None nothing is saved.

    A state that was saved from other `inputs` (model or data) is removed and not used.
    """

    def __init__(self, folder: Path | None, inputs: Inputs) -> None:
        self._folder = folder
        self._inputs = inputs

    def restore(self, model: torch.nn.Module) -> Trained | None:
        """The training of an earlier start; its weights replace those of `model`. None if none was saved.

        A parameter takes the dtype in which it was saved.
        """
        if self._folder is None:
            return None
        path = self._folder / "trained.json"
        try:
            saved = jsonfile.build(_Saved, json.loads(path.read_text(encoding="utf-8")), path)
            weights = load_file(self._folder / "weights.safetensors")
        except (OSError, ValueError, SafetensorError):  # missing or incomplete
            saved = None
        if saved is None or saved.inputs != self._inputs:
            self.remove()
            return None
        parameters = dict(model.named_parameters())
        for name, tensor in weights.items():
            parameters[name].data = tensor.to(parameters[name].device)
        return saved.trained

    def keep(self, trained: Trained, model: torch.nn.Module, names: Collection[str]) -> None:
        """Save a training: its cost, the parameters in `names`, and every parameter that is not float32."""
        if self._folder is None:
            return
        weights = {
            name: p.detach().contiguous()
            for name, p in model.named_parameters()
            if name in names or p.dtype != torch.float32
        }
        saved = _Saved(inputs=self._inputs, trained=trained)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file(weights, self._folder / "weights.safetensors")
            # written last: `restore` takes this file as the sign that the state is complete
            text = json.dumps(dataclasses.asdict(saved), allow_nan=False)
            write_text(self._folder / "trained.json", text)
        except (OSError, SafetensorError) as error:
            self._give_up(error)

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
        if self._folder is not None:
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
