"""The predicted time of a HiFT step: the longest of its computation, its device memory and its transfers.

A roofline: each of the three runs at a stated share of the GPU's peak (gpus.yaml), and each hides behind the
longest, so the time is a lower bound, good for comparing settings. All amounts are means over a sweep.

- Computation: 2 operations a weight and token forward; 2 more for each weight on the way from the loss down
  to the active group; 2 for each active weight. Recomputing repeats the forward pass of that way, and the
  loss in chunks the output layer's. Causal attention is seq_len * hidden weights a block.
- Device memory: the weights are read once by each pass; state and masters are read and written by the update.
- Transfers: state and masters of a group come and go once a step, unless they stay on the device. Streamed
  blocks come for each pass, and the active group's weights go back. Inputs of blocks that recompute go and
  come if they wait on the host.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmark.engine import find_units
from benchmark.engine.partitions import partition
from benchmark.errors import UserError, nearest
from benchmark.memory.setting import Setting
from benchmark.memory.training import build, longest

GPUS = Path(__file__).with_name("gpus.yaml")
RATES = ("bf16_tflops", "fp32_tflops", "hbm_gb_s", "pcie_gb_s")
SHARES = {"compute": 2, "hbm": 1, "pcie": 1}
"""The keys of `utilisation`, and how many of RATES each is for."""
TERA, GIGA = 10**12, 10**9


@dataclass(frozen=True)
class Gpu:
    """What a GPU reaches: operations a second in bf16 and in fp32, bytes a second of its memory, and of PCIe
    one way."""

    bf16: float
    fp32: float
    hbm: float
    pcie: float


@dataclass(frozen=True)
class Cost:
    """One optimizer step: predicted seconds, operations, bytes moved between host and device, and the mean
    share of the weights that it trains."""

    seconds: float
    flops: float
    moved: float
    share: float


@dataclass(frozen=True)
class Sizes:
    """Weights of the units of a partition, bottom to top. Of the whole model: weights that a token is
    multiplied with, those of the blocks, those of the output layer; the number of blocks, and their width;
    the most tokens of a sequence (None: any), and the shapes of all parameters."""

    units: tuple[int, ...]
    multiplied: int
    streamed: int
    output: int
    blocks: int
    hidden: int
    positions: int | None
    shapes: tuple[tuple[int, ...], ...]

    @property
    def total(self) -> int:
        return sum(self.units)

    def groups(self, m: int) -> int:
        """The number of groups of m units."""
        return -(-len(self.units) // m)

    def largest(self, m: int) -> int:
        """The weights of the largest group."""
        return max(sum(self.units[start : start + m]) for start in range(0, len(self.units), m))

    def way(self, m: int) -> float:
        """The mean weights from the lowest unit of a group upwards."""
        starts = range(0, len(self.units), m)
        return sum(sum(self.units[start:]) for start in starts) / len(starts)


def gpu(name: str) -> Gpu:
    """An entry of gpus.yaml, or a file with the keys of one. Raises UserError for anything else."""
    known = yaml.safe_load(GPUS.read_text(encoding="utf-8"))
    entry = known.get(name)
    if entry is None and not Path(name).is_file():
        raise UserError(f"--gpu {name}: no such GPU or file{nearest(name, known)}")
    try:
        entry = entry or yaml.safe_load(Path(name).read_text(encoding="utf-8"))
        rates = [float(entry[key]) for key in RATES]
        shares = [float(entry["utilisation"][key]) for key, n in SHARES.items() for _ in range(n)]
        if min(*rates, *shares) <= 0 or max(shares) > 1:
            raise ValueError("rates are above 0, and utilisation at most 1")
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise UserError(f"--gpu {name}: {str(error).splitlines()[0]}") from None
    except KeyError as error:
        raise UserError(f"--gpu {name}: {error.args[0]} is missing") from None
    units = (TERA, TERA, GIGA, GIGA)
    return Gpu(*(r * unit * s for r, unit, s in zip(rates, units, shares, strict=True)))


def sizes(setting: Setting) -> Sizes:
    """Read from the setting's model on the meta device."""
    return _sizes(setting.model, setting.options.get("partition", "units"))


@cache
def _sizes(model: str, kind: str) -> Sizes:
    with torch.device("meta"):
        built = build(Setting(model=model))
    units = find_units(built)
    layer = built.get_output_embeddings()
    output = 0 if layer is None else layer.weight.numel()
    tied = units[-1].numel < output  # the output layer is the embeddings
    total = sum(unit.numel for unit in units)
    return Sizes(
        units=tuple(unit.numel for unit in partition(built, units, kind)),
        multiplied=total - units[0].numel + (output if tied else 0),
        streamed=sum(unit.numel for unit in units if unit.kind == "block"),
        output=output,
        blocks=sum(unit.kind == "block" for unit in units),
        hidden=built.config.hidden_size,
        positions=longest(built),
        shapes=tuple(tuple(p.shape) for p in built.parameters()),
    )


def cost(setting: Setting, state: float, micro_batches: int, on: Gpu) -> Cost:
    """The mean step of `micro_batches` batches of the setting. state: bytes of the state and masters of all
    groups."""
    model, streams, m = sizes(setting), streamed(setting), setting.group_size or 1
    tokens = setting.batch_size * setting.seq_len
    forward = model.multiplied + model.blocks * setting.seq_len * model.hidden
    share, trained = model.way(m) / model.total, 1 / model.groups(m)
    way = share * forward
    recomputed = way if setting.checkpointing else 0
    if setting.options.get("boundaries") == "parts":
        recomputed *= 2  # at most: the last part of a block is computed again once, as without
    flops = 2 * tokens * (forward + way + recomputed + trained * model.total)
    flops += 2 * tokens * model.output if setting.loss == "chunked" else 0
    updated = 2 * trained * state  # read and written
    moved = 0 if setting.options.get("idle") == "keep" else updated
    if streams:
        blocks = micro_batches * (1 + share) * model.streamed
        moved += weight_bytes(setting) * (blocks + trained * model.total)
    if waits_on_host(setting.options):
        inputs = model.blocks * tokens * model.hidden * weight_bytes(setting)
        moved += micro_batches * 2 * share * inputs
    read = micro_batches * weight_bytes(setting) * (forward + way)
    seconds = max(
        micro_batches * flops / (on.fp32 if setting.precision == "fp32" else on.bf16),
        (read + updated) / on.hbm,
        moved / on.pcie,
    )
    return Cost(seconds=seconds, flops=micro_batches * flops, moved=moved, share=trained)


def streamed(setting: Setting) -> bool:
    """Whether blocks come from host memory."""
    return setting.options.get("weights") == "stream"


def waits_on_host(options: Mapping[str, Any]) -> bool:
    """Whether the inputs of blocks that recompute wait in host memory, by the options of hift."""
    return options.get("boundaries") in ("host", "parts")


def weight_bytes(setting: Setting) -> int:
    """Bytes of a weight on the device."""
    return 4 if setting.precision == "fp32" else 2
