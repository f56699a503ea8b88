"""Settings of HiFT that fit device and host memory, the best first.

A recipe is a precision and an optimizer. A knob is a setting that trades device memory for time. For each
recipe the search finds the shortest step that fits. Among the settings whose step is at most SLACK times as
long it then takes the one that trains the most weights a step, because a step of a small group is a little
shorter but teaches less. Of steps that take as long, within a factor of SAME, those that need less device
memory come first. Two kinds of settings are not simulated: those of which a lower bound is above the budget,
and those that hold as much as one that did not fit, or more, by each of their knobs.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from benchmark.memory import bounds, depth, roofline
from benchmark.memory.roofline import Cost, Gpu, waits_on_host
from benchmark.memory.setting import Setting
from benchmark.memory.simulate import Peak
from benchmark.sizes import readable

RECIPES = (
    ("mixed_hi", "adamw"),
    ("fp32", "adamw"),
    ("mixed_hi", "adamw8bit"),
    ("mixed_hi", "adafactor"),
    ("mixed_hi", "sgd"),
    ("bf16_weights", "adafactor"),
    ("bf16_weights", "sgd"),
)
"""Precision and optimizer: those that keep fp32 weights first, and among them the most of AdamW's state. What
comes later needs less host memory."""
PARTITIONS = ("units", "modules")
"""The finest last. m counts units; what is finer goes one by one."""
KNOBS: Mapping[str, tuple[Any, ...]] = {
    "weights": ("resident", "stream"),
    "idle": ("keep", "cpu"),
    "update": ("step", "in_backward"),
    "partition": PARTITIONS,
    "group_size": (4, 2, 1),
    "checkpointing": (False, True),
    "boundaries": ("device", "host", "parts"),
    "loss": ("whole", "chunked"),
}
"""Name -> values, what needs most device memory first. A name is a field of Setting or an option of hift."""
FIELDS = ("checkpointing", "loss")
"""The knobs that are fields of Setting."""
FLAGS = ("weights", "update", "partition", "group_size")
"""The knobs that are flags of `hift-bench memory`."""
SLACK, SAME = 1.1, 1.03
SEQ_LEN = 1024
"""Tokens of a sequence, unless the model's positions or a step end before."""
Place = tuple[int, ...]
"""Which of the batch sizes, and which value of each knob: what is larger needs less device memory."""


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
        for name, value in setting.options.items():
            flag = f"--{name.replace('_', '-')} {value}"
            parts.append(flag if name in FLAGS else f"--option {name}={value}")
        return " ".join([*parts, *(["--checkpointing"] if setting.checkpointing else [])])

    def call(self) -> str:
        """The engine's optimizer with these settings, for a model with fp32 weights in host memory. The loss
        in chunks and the micro-batches are the loop's."""
        setting = self.setting
        options = dict(setting.options)
        kind = options.pop("boundaries", "device")
        kind = "boundaries" if kind == "device" else kind
        settings = [f"{name}={value!r}" for name, value in options.items()]
        if setting.checkpointing:
            settings.append(f'checkpointing="{kind}"')
        model = "model"
        if setting.precision == "mixed_hi":
            settings.append("master=lower(model, torch.bfloat16)")
        elif setting.precision == "bf16_weights":
            model = "model.bfloat16()"
        return f"HiFT({model}, {setting.optimizer!r}, lr=..., {', '.join(settings)})"

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
    """A recipe that does not fit, and the peak of its settings with the least device memory."""

    setting: Setting
    peak: Peak

    def lacks(self, budget: int, host: int | None) -> str:
        """What it needs at least, and which of the two amounts that exceeds; with "" for neither, where each
        alone would do."""
        amounts = (("device", self.peak.total, budget), ("host", self.peak.host, host))
        return " and ".join(
            f"{readable(needed)} of {name} memory, {readable(given)} given"
            for name, needed, given in amounts
            if given is not None and needed > given
        )


def sequence_length(model: str, tokens: int) -> int:
    """Tokens of a sequence if nothing else is asked. Raises UserError for an unknown model."""
    positions = roofline.sizes(Setting(model=model)).positions
    return min(SEQ_LEN, tokens, positions or SEQ_LEN)


def search(
    model: str, budget: int, host: int | None, *, tokens: int, seq_len: int, on: Gpu
) -> Iterator[Found | Missing]:
    """For each recipe the best settings that fit `budget` bytes of device memory and `host` bytes of host
    memory (None: any amount), or what its least settings need.

    tokens: those of one step, in sequences of `seq_len`. Raises UserError for a model that is unknown or
    cannot be simulated.
    """
    sequences = max(1, -(-tokens // seq_len))
    for precision, optimizer in RECIPES:
        candidates = _candidates(
            {"model": model, "precision": precision, "optimizer": optimizer, "seq_len": seq_len},
            sequences,
        )
        yield _Recipe(candidates, budget, host, sequences, on).best()


def _candidates(usual: Mapping[str, Any], sequences: int) -> dict[Place, Setting]:
    """The settings to choose from."""
    knobs = dict(KNOBS)
    if roofline.sizes(Setting(model=usual["model"])).output == 0:
        del knobs["loss"]
    batches = [size for size in range(sequences, 0, -1) if sequences % size == 0]
    found = {}
    for place in product(range(len(batches)), *(range(len(values)) for values in knobs.values())):
        chosen = {n: v[i] for (n, v), i in zip(knobs.items(), place[1:], strict=True)}
        if _makes_sense(chosen, whole=place[0] == 0):
            fields = {name: chosen.pop(name) for name in FIELDS if name in chosen}
            if chosen["boundaries"] == "device" and chosen["update"] == "step":
                del chosen["boundaries"]  # hift's default needs no mention
            batch = batches[place[0]]
            found[place] = Setting(**usual, batch_size=batch, options=chosen, **fields)
    return found


def _makes_sense(chosen: Mapping[str, Any], *, whole: bool) -> bool:
    """Streaming is not for devices that hold all state. An update inside the backward pass takes all tokens
    of a step at once. The inputs of blocks wait on the host, and the parts of a block recompute apart, where
    blocks recompute."""
    return (
        not (chosen["weights"] == "stream" and chosen["idle"] == "keep")
        and (whole or chosen["update"] == "step")
        and (chosen["checkpointing"] or chosen["boundaries"] == "device")
        and (chosen["partition"] == PARTITIONS[0] or chosen["group_size"] == 1)
    )


def _class(seconds: float) -> int:
    """Equal for times that are about as long."""
    return round(math.log(seconds) / math.log(SAME))


class _Recipe:
    """The settings of one recipe, and those of them that are known to be too large."""

    def __init__(
        self,
        candidates: Mapping[Place, Setting],
        budget: int,
        host: int | None,
        sequences: int,
        on: Gpu,
    ) -> None:
        self._candidates, self._sequences, self._on = candidates, sequences, on
        self._budget, self._host = budget, host
        self._peaks: dict[Place, Peak] = {}
        self._too_large: list[Place] = []
        self._state = bounds.state_bytes(next(iter(candidates.values())))

    def best(self) -> Found | Missing:
        """The largest share of the weights in a step that is hardly longer than the shortest that fits."""
        costs = {
            place: roofline.cost(setting, self._state, self._micro(setting), self._on)
            for place, setting in self._candidates.items()
        }
        order = sorted(costs, key=lambda place: (_class(costs[place].seconds), self._taste(place)))
        shortest = self._first(order)
        if shortest is None:
            return self._missing()
        near = [p for p in order if costs[p].seconds <= SLACK * costs[shortest].seconds]
        chosen = self._first(sorted(near, key=lambda p: -costs[p].share))
        assert chosen is not None, "the shortest is one of them"
        setting = self._candidates[chosen]
        return Found(setting, self._micro(setting), self._peak(chosen), costs[chosen])

    def _missing(self) -> Missing:
        """The settings with the least peak, of either update."""
        least: dict[str, Place] = {}
        for place, setting in sorted(self._candidates.items()):
            least[setting.options["update"]] = place
        place = min(least.values(), key=lambda place: self._peak(place).total)
        return Missing(self._candidates[place], self._peak(place))

    def _taste(self, place: Place) -> tuple[Any, ...]:
        """The order of settings that take as long: an ordinary update before one inside the backward pass,
        which cannot clip; inputs of blocks on the device before those on the host, which take transfers that
        may not hide; then what needs less device memory."""
        options = self._candidates[place].options
        return options["update"] != "step", waits_on_host(options), *(-at for at in place)

    def _peak(self, place: Place) -> Peak:
        if place not in self._peaks:
            self._peaks[place] = depth.peak(self._candidates[place])
        return self._peaks[place]

    def _micro(self, setting: Setting) -> int:
        return self._sequences // setting.batch_size

    def _first(self, places: Sequence[Place]) -> Place | None:
        return next((place for place in places if self._fits(place)), None)

    def _fits(self, place: Place) -> bool:
        """Whether device and host hold it, simulated if no bound says that they do not."""
        if place not in self._peaks and (
            any(all(a <= b for a, b in zip(place, other, strict=True)) for other in self._too_large)
            or bounds.on_device(self._candidates[place], self._state) > self._budget
        ):
            return False
        setting = self._candidates[place]
        if self._host is not None and bounds.on_host(setting, self._state) > self._host:
            return False
        peak = self._peak(place)
        if peak.total > self._budget:
            self._too_large.append(place)
        return peak.total <= self._budget and (self._host is None or peak.host <= self._host)
