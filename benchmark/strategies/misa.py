"""MISA: matrices of the blocks, drawn by the size of their gradients, train together (arXiv 2511.00056)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from benchmark.strategies.base import Card, Options
from benchmark.strategies.shared.blockwise import Blockwise

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class MisaOptions(Options):
    """share: δ, the most parameters that are drawn together, as a share of the model's; at least the largest
    matrix. eta: how much the gradients decide; 0 draws all matrices alike. smoothing: β, of the average of
    squared gradient norms. dwell: T, the steps before others are drawn. head: the head trains in every
    turn."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.03
    eta: Annotated[float, Field(ge=0)] = 1.0
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.8
    dwell: Annotated[int, Field(ge=1)] = 50
    head: bool = True


class Misa(Blockwise):
    """Norms, biases and embeddings are frozen. The optimizer state of a turn is dropped at its end.

    Two parts of Algorithm 1 that belong to its proof, and that the authors' code leaves out, are left out
    here: the maximum in Adam's second moment, and the additional Adam step at the end of a turn.
    """

    card = Card(
        paper="arXiv 2511.00056",
        reference="Algorithm 1; github.com/pkumelon/MISA, misa/optimizer.py, without its first pass over all "
        "matrices and its forced draws (sample_last)",
        checked="how often matrices are drawn against the softmax; a written-out loop for the average",
    )

    Options = MisaOptions
    refuses: ClassVar[Mapping[str, str]] = {
        "sharded": "matrices are drawn by the norms of whole gradients"
    }
    # not bf16_weights, which makes what trains beside frozen weights fp32, and here that is most of them
    precisions = ("fp32", "bf16", "fp16", "mixed_hi")
    master_precisions = ("mixed_hi",)
    masters = "active"

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        from benchmark.engine import find_units

        options: MisaOptions = self.options
        named = dict(model.named_parameters())
        for unit in find_units(model):
            for name in unit.parameters:
                trains = named[name].ndim >= 2 if unit.kind == "block" else options.head
                named[name].requires_grad_(trains and unit.kind != "embeddings")
        return super().prepare(model)

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        from benchmark.engine import misa

        options: MisaOptions = self.options
        return self.blockwise(
            model,
            total_steps,
            make=misa,
            rate="every_step",
            switch_every=options.dwell,
            **options.model_dump(include={"share", "eta", "smoothing"}),
        )
