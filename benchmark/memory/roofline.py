"""The predicted time of a HiFT step: the longest of its computation, its device memory and its transfers.

A roofline: each of the three runs at a stated share of the GPU's peak (gpus.yaml), and each hides behind the
longest, so the time is a lower bound, good for comparing settings. All amounts are means over a sweep.

- Computation: 2 operations a weight and token forward; 2 more for each weight on the way from the loss down
  to the active group; 2 for each active weight. Recomputing repeats the forward pass of that way, and the
  loss in chunks the output layer's. Causal attention is seq_len * hidden weights a block.
- Device memory: the weights are read once by each pass; state and masters are read and written by the update.
- Transfers: state and masters of a group come and go once a step. Streamed blocks come for each pass, and
  the active group's weights go back.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import yaml

from benchmark.engine import find_units
from benchmark.errors import UserError, nearest
from benchmark.memory.setting import Setting
from benchmark.memory.simulate import Peak
from benchmark.memory.training import build

GPUS = Path(__file__).with_name("gpus.yaml")
RATES = ("bf16_tflops", "hbm_gb_s", "pcie_gb_s")
SHARES = ("compute", "hbm", "pcie")
TERA, GIGA = 10**12, 10**9
LOW = 2
"""Bytes of a weight in bf16."""


@dataclass(frozen=True)
class Gpu:
    """What a GPU reaches: operations a second, bytes a second of its memory and of PCIe one way."""

    flops: float
    hbm: float
    pcie: float


@dataclass(frozen=True)
class Cost:
    """One optimizer step: predicted seconds, operations, and bytes moved between host and device."""

    seconds: float
    flops: float
    moved: float


@dataclass(frozen=True)
class Sizes:
    """Weights of the units, bottom to top; of the blocks among them; of the output layer. The number of
    blocks, and their width."""

    units: tuple[int, ...]
    streamed: int
    output: int
    blocks: int
    hidden: int

    @property
    def total(self) -> int:
        return sum(self.units)


def gpu(name: str) -> Gpu:
    """An entry of gpus.yaml, or a file with the keys of one. Raises UserError for anything else."""
    known = yaml.safe_load(GPUS.read_text(encoding="utf-8"))
    entry = known.get(name)
    if entry is None and not Path(name).is_file():
        raise UserError(f"--gpu {name}: no such GPU or file{nearest(name, known)}")
    try:
        entry = entry or yaml.safe_load(Path(name).read_text(encoding="utf-8"))
        rates = [float(entry[key]) for key in RATES]
        shares = [float(entry["utilisation"][key]) for key in SHARES]
        if min(*rates, *shares) <= 0 or max(shares) > 1:
            raise ValueError("rates are above 0, and utilisation at most 1")
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise UserError(f"--gpu {name}: {str(error).splitlines()[0]}") from None
    except KeyError as error:
        raise UserError(f"--gpu {name}: {error.args[0]} is missing") from None
    units = (TERA, GIGA, GIGA)
    return Gpu(*(r * unit * s for r, unit, s in zip(rates, units, shares, strict=True)))


@cache
def sizes(model: str) -> Sizes:
    """Read from the model on the meta device."""
    with torch.device("meta"):
        built = build(Setting(model=model))
    units = find_units(built)
    layer = built.get_output_embeddings()
    return Sizes(
        units=tuple(unit.numel for unit in units),
        streamed=sum(unit.numel for unit in units if unit.kind == "block"),
        output=0 if layer is None else layer.weight.numel(),
        blocks=sum(unit.kind == "block" for unit in units),
        hidden=built.config.hidden_size,
    )


def cost(setting: Setting, peak: Peak, micro_batches: int, on: Gpu) -> Cost:
    """The mean step of `micro_batches` batches of the setting. `peak` says what is on the host, for any m."""
    model, streams = sizes(setting.model), streamed(setting)
    tokens = setting.batch_size * setting.seq_len
    forward = model.total - model.units[0] + model.blocks * setting.seq_len * model.hidden
    if model.units[-1] < model.output:  # tied: the output layer is the embeddings
        forward += model.output
    groups = -(-len(model.units) // (setting.group_size or 1))
    active = model.total / groups
    share = _mean_way(model, setting.group_size or 1) / model.total
    way = share * forward
    recomputed = way if setting.checkpointing or streams else 0
    flops = 2 * tokens * (forward + way + recomputed + active)
    flops += 2 * tokens * model.output if setting.loss == "chunked" else 0
    idle = peak.host - LOW * model.streamed * streams
    state = idle * peak.groups / max(1, peak.groups - 1) / groups
    weights = LOW * (forward + way)
    moved = 2 * state
    if streams:
        moved += LOW * (micro_batches * (1 + share) * model.streamed + active)
    seconds = max(
        micro_batches * flops / on.flops,
        (micro_batches * weights + 2 * state) / on.hbm,
        moved / on.pcie,
    )
    return Cost(seconds=seconds, flops=micro_batches * flops, moved=moved)


def streamed(setting: Setting) -> bool:
    """Whether blocks come from host memory; they are then recomputed too."""
    return setting.options.get("weights") == "stream"


def _mean_way(model: Sizes, m: int) -> float:
    """The mean weights from the lowest unit of a group upwards."""
    starts = range(0, len(model.units), m)
    return sum(sum(model.units[start:]) for start in starts) / len(starts)
