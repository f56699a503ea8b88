"""HiFT: each optimizer step updates one group of layer units (arXiv 2401.15207, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from benchmark import rows
from benchmark.errors import UserError
from benchmark.optimizers import ELEMENTWISE, OPTIMIZERS
from benchmark.strategies.base import Card, TuningStrategy
from benchmark.strategies.settings import TrainingSettings
from benchmark.strategies.shared.adapted import Adapted, AdaptedOptions
from benchmark.strategies.shared.blockwise import Blockwise

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from benchmark.models.layers import Layers


IN_BACKWARD = {
    "accumulate": "update: in_backward changes the weights in each backward pass; raise batch_size, with "
    "checkpointing, or use update: step",
    "clip": "with update: in_backward the norm of all gradients is known only after the weights are updated; "
    "use update: step",
    "data_parallel": "with update: in_backward gradients are used up before they could be averaged; use "
    "update: step",
    "fp16": "its gradients are unscaled after the backward pass, and update: in_backward uses them up inside "
    "it; use bf16, mixed_hi or update: step",
}
"""What the update inside the backward pass cannot do."""
STREAMED = {
    "data_parallel": "weights: stream works on one device; use weights: resident",
}
"""What streamed weights cannot do."""
IMPORTANCE = {
    "sharded": "order: importance needs whole gradients, of which each device has a part; use another order",
}
"""What an order that gradients decide cannot do."""
ROWS = {
    "data_parallel": "with partition: rows:N the ranks do not average the gradients of rows; use partition: "
    "modules",
    **{
        name: "with partition: rows:N some rows of a matrix are updated at a time, and it may need all of "
        f"them; use {', '.join(ELEMENTWISE)}, or partition: modules"
        for name in OPTIMIZERS
        if name not in ELEMENTWISE
    },
}
"""What training rows apart cannot do."""


class HiftOptions(AdaptedOptions):
    """Options of the engine.

    group_size: m, units per group. partition: a unit is a layer (units), one of its modules, such as the
    queries' projection (modules), or about N parameters, for which matrices are cut into ranges of rows
    (rows:N, as rows:32M). order: the order of the groups in a sweep; importance begins each sweep
    with the group whose gradients have been the largest. dwell: consecutive steps per group. idle: the
    optimizer state of the idle groups stays on the device (keep), moves to host memory (cpu) or is dropped.
    rate: the delayed learning rate of the paper, or that of the authors' code (reference). weights: those of
    the blocks stay on the device (resident) or are streamed from host memory. update: after the backward pass
    (step), or inside it, so that one gradient exists at a time (in_backward); piece: the most bytes of state
    and masters that are then on the device together. boundaries: the inputs of the blocks that recompute wait
    on the device or in host memory (host), and with parts the attention and the MLP of a block recompute
    apart besides. The default is what needs least memory with update: in_backward, else device. With an
    adapter the groups are of the units in which it trains something.
    """

    group_size: Annotated[int, Field(ge=1)] = 1
    order: Literal["bottom2up", "top2down", "random", "importance"] = "bottom2up"
    dwell: Annotated[int, Field(ge=1)] = 1
    idle: Literal["keep", "cpu", "drop"] = "cpu"
    rate: Literal["paper", "reference"] = "paper"
    weights: Literal["resident", "stream"] = "resident"
    partition: str = "units"
    update: Literal["step", "in_backward"] = "step"
    piece: Annotated[int, Field(ge=1)] = 8 << 20
    boundaries: Literal["device", "host", "parts"] | None = None

    @field_validator("partition")
    @classmethod
    def _the_partition_is_known(cls, partition: str) -> str:
        rows.most(partition)
        return partition


class Hift(Adapted, Blockwise):
    """All parameters train, one group at a time (`benchmark.engine.HiFT`)."""

    card = Card(
        paper="arXiv 2401.15207",
        reference="Algorithm 1; rate: reference as in github.com/misonsky/HiFT, hift/trainer.py",
        checked="against a written-out loop bit for bit, and traces recorded from the authors' code",
    )

    Options = HiftOptions
    precisions = (*TuningStrategy.precisions, "mixed", "mixed_hi")
    master_precisions = ("mixed", "mixed_hi")
    recomputes = True

    @classmethod
    def refused(cls, options: HiftOptions) -> Mapping[str, str]:
        refused = dict(cls.refuses if options.update == "step" else IN_BACKWARD)
        if options.weights == "stream":
            refused = {**STREAMED, **refused}
        if options.order == "importance":
            refused = {**IMPORTANCE, **refused}
        return {**ROWS, **refused} if rows.most(options.partition) else refused

    def __init__(self, settings: TrainingSettings, options: HiftOptions) -> None:
        super().__init__(settings, options)
        if options.boundaries in ("host", "parts") and not settings.checkpointing:
            raise UserError(
                f"boundaries: {options.boundaries} is for blocks that recompute; set checkpointing: true"
            )
        least = settings.checkpointing and options.update == "in_backward"
        self._boundaries = options.boundaries or ("parts" if least else "device")

    def check_layers(self, layers: Layers) -> None:
        super().check_layers(layers)
        m, blocks = self.options.group_size, layers.blocks
        if self.options.partition == "units" and blocks and m > blocks + 2:
            raise UserError(
                f"group_size {m} is more than the {blocks + 2} units: embeddings, {blocks} blocks and head"
            )

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        from benchmark.engine import keep_on_host

        prepared = super().prepare(model)
        if self.options.weights == "stream":
            keep_on_host(prepared)
        return prepared

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        options = self.options.model_dump(exclude={"adapter", "adapter_options", "boundaries"})
        return self.blockwise(model, total_steps, boundaries=self._boundaries, **options)
