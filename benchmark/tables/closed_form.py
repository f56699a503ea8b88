"""The ledger tables: trainable parameters and bytes of any model's shape, without weights or network.

The paper's columns: #Para are the weights (and fp32 masters) on the device, #Gra the gradients in fp32 as the
optimizer reads them, #Sta the optimizer state, #PGS their sum. For HiFT these are the largest of any step of
the second sweep, when every group has its state. FPFT is one group of all units.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError
from benchmark.sizes import GIB, MIB

if TYPE_CHECKING:
    from benchmark.engine import Unit

MILLION = 10**6
OPTIMIZERS = {
    "AdamW": "adamw",
    "SGDM": "sgdm",
    "SGD": "sgd",
    "Adafactor": "adafactor",
    "Adagrad": "adagrad",
}


@dataclass(frozen=True)
class Precision:
    """Bytes per weight, whose fp32 master is kept ("all" or "none"), and whether all of those are on the
    device or only the active group's."""

    weight_size: int
    master: str
    idle_masters_on_device: bool = False


PRECISIONS = {
    "FP32": Precision(4, "none"),
    "Mixed": Precision(2, "all", idle_masters_on_device=True),
    "Mixed^Hi": Precision(2, "all"),
}
ROWS = tuple(
    (optimizer, precision, method)
    for optimizer in OPTIMIZERS
    for precision in PRECISIONS
    for method in ("FPFT", "HiFT")
    if (precision, method) != ("Mixed^Hi", "FPFT")
)


@dataclass(frozen=True)
class Held:
    """Bytes of one step, and how many parameters it trains."""

    trainable: int
    para: int
    gra: int
    sta: int

    @property
    def pgs(self) -> int:
        return self.para + self.gra + self.sta


@cache
def shape(model: str) -> tuple[tuple[Unit, ...], dict[str, tuple[int, ...]]]:
    """The layer units and every parameter's shape; a known shape, a local folder or a Hub id.

    Raises UserError for an unknown model and for one with neither a language model's nor a
    classifier's head, which has nothing to be fine-tuned for.
    """
    from transformers.models.auto import modeling_auto as auto

    from benchmark.engine import find_units
    from benchmark.models import shapes

    architecture, _ = shapes.config(model)
    heads = (
        auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )
    if not any(architecture in names.values() for names in heads):
        raise UserError(
            f"model {model}: {architecture} has no causal-LM head, nor a masked-LM's or classifier's"
        )
    built = shapes.build(model)
    return find_units(built), {name: tuple(p.shape) for name, p in built.named_parameters()}


def held(model: str, optimizer: str, precision: str, method: str, *, group_size: int = 1) -> Held:
    """The fullest step of `method` (FPFT or HiFT at m = group_size), by the ledger.

    optimizer is a name in CLOSED of the engine's ledger; precision one of PRECISIONS.
    """
    from benchmark.engine import Ledger, make_plan

    units, parameters = shape(model)
    plan = make_plan(units, group_size="all" if method == "FPFT" else group_size)
    kind = PRECISIONS[precision]
    ledger = Ledger(
        plan,
        parameters,
        optimizer=optimizer,
        weight_size=kind.weight_size,
        idle="cpu",
        master=kind.master,
    )
    sweep = plan.schedule.sweep_steps
    step = max(range(sweep, 2 * sweep), key=lambda step: ledger.at(step, "step").device)
    found = ledger.at(step, "step")
    idle_masters = found.host_master if kind.idle_masters_on_device else 0
    return Held(
        trainable=plan.group_at(step).numel,
        para=found.parameters + found.master + idle_masters,
        gra=found.gradients,
        sta=found.optimizer_state,
    )


def trainable_parameters(models: Sequence[str], *, group_size: int = 1) -> list[dict[str, Any]]:
    """One row per model: total, the most that one step of HiFT at m = `group_size` trains, and the
    reduction in percent; then their mean reduction."""
    from benchmark.engine import make_plan

    rows: list[dict[str, Any]] = []
    for model in models:
        units, _ = shape(model)
        groups = make_plan(units, group_size=group_size).groups
        total, peak = sum(u.numel for u in units), max(group.numel for group in groups)
        rows.append(
            {
                "model": model,
                "groups": len(groups),
                "total_params": total,
                "peak_trainable": peak,
                "reduction_percent": 100 * (1 - peak / total),
            }
        )
    mean = statistics.fmean(row["reduction_percent"] for row in rows)
    rows.append(dict.fromkeys(rows[0]) | {"model": "mean", "reduction_percent": mean})
    return rows


def memory(model: str, *, group_size: int = 1) -> list[dict[str, Any]]:
    """The paper's rows for one model: trainable in millions, #Para, #Gra and #Sta in MB (2^20 bytes),
    #PGS in GB (2^30)."""
    return [_memory_row(model, *row, group_size) for row in ROWS]


def _memory_row(
    model: str, optimizer: str, precision: str, method: str, group_size: int
) -> dict[str, Any]:
    found = held(model, OPTIMIZERS[optimizer], precision, method, group_size=group_size)
    return {
        "model": model,
        "optimizer": optimizer,
        "precision": precision,
        "method": method,
        "trainable_params": found.trainable / MILLION,
        "para": found.para / MIB,
        "gra": found.gra / MIB,
        "sta": found.sta / MIB,
        "pgs": found.pgs / GIB,
    }


def strategies(models: Iterable[str]) -> dict[str, dict[str, Held]]:
    """model -> "method, precision" -> what AdamW holds: what the picture of memory draws."""
    return {
        model: {
            f"{method}, {precision}": held(model, "adamw", precision, method)
            for optimizer, precision, method in ROWS
            if optimizer == "AdamW"
        }
        for model in models
    }
