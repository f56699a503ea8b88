"""What a run keeps from the end of training until its record, so that a killed evaluation can go on.

A folder beside the results: `weights.safetensors` with the parameters that trained (as many bytes as they
weigh: 52 GB for all of a 13B model in fp32), `trained.json` with what the training cost, and
`predictions.jsonl` with a line per batch. It is gone once the record is written.
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
    """What a training cost; `curve` is the text of the curve's CSV."""

    train: Train
    params: Params
    memory: Memory
    evaluations: list[Evaluation]
    curve: str


@dataclass(frozen=True, kw_only=True)
class _Kept:
    inputs: Inputs
    trained: Trained


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One batch: a hash per example, the predictions, and the peak bytes of the evaluation up to here."""

    ids: list[Any]
    predictions: list[Any]
    peak: int


class Unfinished:
    """The folder of one run, or with None nothing at all. What was kept of other inputs does not count."""

    def __init__(self, folder: Path | None, inputs: Inputs) -> None:
        self._folder = folder
        self._inputs = inputs

    def restore(self, model: torch.nn.Module) -> Trained | None:
        """What an earlier start trained, with its weights put into `model`; None where there is nothing."""
        if self._folder is None:
            return None
        path = self._folder / "trained.json"
        try:
            kept = jsonfile.build(_Kept, json.loads(path.read_text(encoding="utf-8")), path)
            weights = load_file(self._folder / "weights.safetensors")
        except (OSError, ValueError, SafetensorError):  # not there, or cut short
            kept = None
        if kept is None or kept.inputs != self._inputs:
            self.remove()
            return None
        named = dict(model.named_parameters())
        for name, tensor in weights.items():
            named[name].data = tensor.to(named[name].device)  # in the dtype it was trained in
        return kept.trained

    def keep(self, trained: Trained, model: torch.nn.Module, names: Collection[str]) -> None:
        """Keep a training: the parameters called `names`, and those that it gave another dtype."""
        if self._folder is None:
            return
        weights = {
            name: p.detach().contiguous()
            for name, p in model.named_parameters()
            if name in names or p.dtype != torch.float32
        }
        kept = _Kept(inputs=self._inputs, trained=trained)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file(weights, self._folder / "weights.safetensors")
            # last, as the sign that all is there
            write_text(
                self._folder / "trained.json", json.dumps(dataclasses.asdict(kept), allow_nan=False)
            )
        except (OSError, SafetensorError) as error:
            self._give_up(error)

    def scored(self, batches: Iterable[list[str]]) -> list[Scored]:
        """The first of the `batches` (the hashes of their examples) that an earlier start has scored.

        A half-written last line is cut off, so that `add` goes on after whole ones.
        """
        if self._folder is None or not self._predictions.exists():
            return []
        found, whole = [], 0
        with open(self._predictions, "rb") as file:
            for ids, line in zip(batches, file, strict=False):
                batch = _parsed(line)
                if batch is None or batch.ids != ids:
                    break
                found.append(batch)
                whole += len(line)
        os.truncate(self._predictions, whole)
        return found

    def add(self, batch: Scored) -> None:
        """Keep one more batch, where there is room, and no orphan of a killed runner has thrown the folder
        away: the evaluation itself goes on."""
        if self._folder is None:
            return
        try:
            with open(self._predictions, "a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(batch)) + "\n")
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        warnings.warn(f"an interrupted evaluation will start anew: {error}", stacklevel=3)
        self.remove()
        self._folder = None

    def remove(self) -> None:
        """Throw all of it away."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _predictions(self) -> Path:
        assert self._folder is not None
        return self._folder / "predictions.jsonl"


def _parsed(line: bytes) -> Scored | None:
    """The batch of a line, None for one that is not whole."""
    try:
        return Scored(**json.loads(line)) if line.endswith(b"\n") else None
    except (ValueError, TypeError):
        return None
