"""Settings of HiFT that fit device and host memory, the best first.

A recipe is precision and optimizer. A knob says what a step holds and costs. Of each recipe the fastest
values of the knobs that fit are looked for, in the order of predicted time. What cannot fit by a bound from
below is not simulated, and neither is what needs more in every knob than something that did not fit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from benchmark.memory import depth, roofline
from benchmark.memory.roofline import LOW, Cost, Gpu
from benchmark.memory.setting import Setting
from benchmark.memory.simulate import Peak
from benchmark.strategies import options_of

RECIPES = (
    ("mixed_hi", "adamw"),
    ("mixed_hi", "adafactor"),
    ("mixed_hi", "sgd"),
    ("bf16_weights", "adafactor"),
    ("bf16_weights", "sgd"),
)
"""Precision and optimizer, the most faithful first: fp32 masters, then all of the optimizer's state."""
KNOBS: Mapping[str, tuple[Any, ...]] = {
    "weights": ("resident", "stream"),
    "update": ("step", "in_backward"),
    "group_size": (4, 2, 1),
    "checkpointing": (False, True),
    "loss": ("whole", "chunked"),
}
"""Name -> values, what needs most memory first. A name is a field of Setting or an option of hift; an option
that hift does not have is left out."""
FIELDS = ("checkpointing", "loss")
"""The knobs that are fields of Setting."""


@dataclass(frozen=True)
class Found:
    """Settings that fit. `micro_batches` of them are one step."""

    setting: Setting
    micro_batches: int
    peak: Peak
    cost: Cost

    def command(self) -> str:
        """The `hift-bench memory` call that simulates the same."""
        setting, parts = self.setting, ["hift-bench memory", self.setting.model, "--strategy hift"]
        for name in ("precision", "optimizer", "batch_size", "seq_len", "loss"):
            parts.append(f"--{name.replace('_', '-')} {getattr(setting, name)}")
        parts += [f"--{name.replace('_', '-')} {v}" for name, v in setting.options.items()]
        return " ".join([*parts, *(["--checkpointing"] if setting.checkpointing else [])])

    def spec(self) -> dict[str, Any]:
        """The fields of a RunSpec, or the keys of a matrix."""
        setting = self.setting
        return {
            "strategy": "hift",
            "options": dict(setting.options),
            **{name: getattr(setting, name) for name in ("precision", "optimizer", *FIELDS)},
            "batch_size": setting.batch_size,
            "accumulate": self.micro_batches,
            "max_length": setting.seq_len,
        }


@dataclass(frozen=True)
class Missing:
    """A recipe that does not fit, and its least peak."""

    setting: Setting
    peak: Peak


def search(
    model: str, budget: int, host: int | None, *, tokens: int, seq_len: int, on: Gpu
) -> Iterator[Found | Missing]:
    """For each recipe the fastest settings that fit `budget` bytes of device memory and `host` bytes of host
    memory (None: any amount), or what its least settings need.

    tokens: those of one step, in sequences of `seq_len`. Raises UserError for a model that is unknown or
    cannot be simulated.
    """
    chunkable = roofline.sizes(model).output > 0
    sequences = max(1, -(-tokens // seq_len))
    knobs = {
        name: values
        for name, values in KNOBS.items()
        if (name in FIELDS or name in options_of("hift").model_fields)
        and (name != "loss" or chunkable)
    }
    batches = [size for size in range(sequences, 0, -1) if sequences % size == 0]
    for precision, optimizer in RECIPES:
        usual = partial(
            Setting, model=model, precision=precision, optimizer=optimizer, seq_len=seq_len
        )
        candidates = {
            (at, *places): _setting(usual, knobs, batch, places)
            for at, batch in enumerate(batches)
            for places in product(*(range(len(values)) for values in knobs.values()))
        }
        yield _fastest(
            {p: setting for p, setting in candidates.items() if _is_sensible(setting, sequences)},
            *(budget, host, sequences, on),
        )


def _is_sensible(setting: Setting, sequences: int) -> bool:
    """Streaming recomputes anyway, and an update inside the backward pass is one of the whole step."""
    whole = setting.batch_size == sequences
    return (setting.checkpointing or not roofline.streamed(setting)) and (
        whole or setting.options.get("update") != "in_backward"
    )


def at_least(setting: Setting) -> int:
    """Bytes that the device surely holds: resident weights in bf16, the input of each block and, if it is
    stored, ten times as much inside of it, and whole logits in fp32 with their gradient."""
    model = roofline.sizes(setting.model)
    tokens = setting.batch_size * setting.seq_len
    weights = 0 if roofline.streamed(setting) else LOW * model.total
    stored = 1 if setting.checkpointing else 10
    inputs = LOW * tokens * model.hidden * model.blocks * stored
    logits = 2 * 4 * tokens * model.output // model.hidden if setting.loss == "whole" else 0
    return weights + inputs + logits


def _setting(
    usual: Any, knobs: Mapping[str, tuple[Any, ...]], batch: int, places: tuple[int, ...]
) -> Setting:
    chosen = {n: values[i] for (n, values), i in zip(knobs.items(), places, strict=True)}
    fields = {name: chosen.pop(name) for name in FIELDS if name in chosen}
    setting: Setting = usual(batch_size=batch, options=chosen, **fields)
    return setting


def _fastest(
    candidates: Mapping[tuple[int, ...], Setting],
    budget: int,
    host: int | None,
    sequences: int,
    on: Gpu,
) -> Found | Missing:
    """The first of the candidates, in the order of predicted time, that fits."""
    kinds = {setting.options.get("update"): place for place, setting in sorted(candidates.items())}
    least = {place: depth.peak(candidates[place]) for place in kinds.values()}
    lowest = min(least, key=lambda place: least[place].total)
    bottom = least[lowest]
    if bottom.total > budget or (host is not None and bottom.host > host):
        return Missing(candidates[lowest], bottom)

    def cost(place: tuple[int, ...]) -> Cost:
        setting = candidates[place]
        return roofline.cost(setting, bottom, sequences // setting.batch_size, on)

    costs = {place: cost(place) for place in candidates}
    too_large: list[tuple[int, ...]] = []
    for place in sorted(candidates, key=lambda place: (costs[place].seconds, place)):
        setting = candidates[place]
        if any(all(a <= b for a, b in zip(place, other, strict=True)) for other in too_large):
            continue
        if place not in least and at_least(setting) > budget:
            continue
        peak = least.get(place) or depth.peak(setting)
        if peak.total <= budget and (host is None or peak.host <= host):
            micro = sequences // setting.batch_size
            return Found(setting, micro, peak, roofline.cost(setting, peak, micro, on))
        too_large.append(place)
    return Missing(candidates[lowest], bottom)
