"""Closed forms: trainable parameters and bytes, from the shape of a model alone, without its weights.

The columns are the paper's. #Para: weights and fp32 masters on the device. #Gra: gradients, in the fp32 that
the optimizer reads. #Sta: optimizer state. #PGS: the sum of the three. For HiFT each is that of the step with
the most bytes in the second sweep, when every group has its state. FPFT is one group of all units.
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
    """weight_size: bytes per weight. master, idle_master: as in the engine."""

    weight_size: int
    master: str
    idle_master: str | None = None


PRECISIONS = {
    "FP32": Precision(4, "none"),
    "Mixed": Precision(2, "all", idle_master="keep"),
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
    """Bytes on the device in one step (para, gra, sta), and the number of parameters that it trains."""

    trainable: int
    para: int
    gra: int
    sta: int

    @property
    def pgs(self) -> int:
        """The sum of weights, gradients and optimizer state, in bytes."""
        return self.para + self.gra + self.sta


@cache
def shape(model: str) -> tuple[tuple[Unit, ...], dict[str, tuple[int, ...]]]:
    """The layer units, and parameter name -> shape. model: a name of MODELS, a local folder or a Hub id.

    Raises UserError for an unknown model, and for one without a head of a language model or classifier.
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
    """The step of `method` with the most bytes on the device, from the engine's ledger.

    optimizer: a name in CLOSED of benchmark.engine.ledger. precision: a key of PRECISIONS. method: FPFT, or
    HiFT with m = group_size.
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
        idle_master=kind.idle_master,
    )
    sweep = plan.schedule.sweep_steps
    step = max(range(sweep, 2 * sweep), key=lambda step: ledger.at(step, "step").device)
    amounts = ledger.at(step, "step")
    return Held(
        trainable=plan.group_at(step).numel,
        para=amounts.parameters + amounts.master,
        gra=amounts.gradients,
        sta=amounts.optimizer_state,
    )


def trainable_parameters(models: Sequence[str], *, group_size: int = 1) -> list[dict[str, Any]]:
    """One row per model, then one with the mean reduction.

    A row has the number of groups, the total parameters, the most that one step of HiFT trains at
    m = group_size, and the reduction in percent.
    """
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
    """The rows of the paper's memory table for one model: trainable parameters in millions; #Para, #Gra and
    #Sta in MB (2^20 bytes); #PGS in GB (2^30 bytes)."""
    return [_memory_row(model, *row, group_size) for row in ROWS]


def _memory_row(
    model: str, optimizer: str, precision: str, method: str, group_size: int
) -> dict[str, Any]:
    step = held(model, OPTIMIZERS[optimizer], precision, method, group_size=group_size)
    return {
        "model": model,
        "optimizer": optimizer,
        "precision": precision,
        "method": method,
        "trainable_params": step.trainable / MILLION,
        "para": step.para / MIB,
        "gra": step.gra / MIB,
        "sta": step.sta / MIB,
        "pgs": step.pgs / GIB,
    }


def strategies(models: Iterable[str]) -> dict[str, dict[str, Held]]:
    """model -> "method, precision" -> the bytes with AdamW: the data of the picture of memory."""
    return {
        model: {
            f"{method}, {precision}": held(model, "adamw", precision, method)
            for optimizer, precision, method in ROWS
            if optimizer == "AdamW"
        }
        for model in models
    }
