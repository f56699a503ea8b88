"""OFT through peft: orthogonal matrices in blocks, which rotate the inputs of the adapted projections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from benchmark.strategies.base import Card, Options
from benchmark.strategies.shared.peft_method import PeftMethod, targets_of, task_type

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


class OftOptions(Options):
    """block: the width of a block, by which the input width of each adapted matrix can be divided. dropout:
    the share of blocks left out. targets: names of the adapted modules; by default peft's choice for the
    model family."""

    block: Annotated[int, Field(ge=2)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: tuple[str, ...] | None = None


class Oft(PeftMethod):
    """`OFTConfig`. Every block starts as the identity. peft has no OFT of GPT-2's Conv1D."""

    card = Card(
        paper="arXiv 2306.07280; input rotations as in arXiv 2506.19847",
        reference="peft.OFTConfig, whose Cayley transform is a Neumann series",
        checked="trainable parameters, outputs and a step equal those of a model wrapped by peft directly",
    )

    Options = OftOptions

    def config(self, model: PreTrainedModel) -> PeftConfig:
        from peft import OFTConfig

        options: OftOptions = self.options
        return OFTConfig(
            task_type=task_type(model),
            oft_block_size=options.block,
            module_dropout=options.dropout,
            **targets_of(options),
        )

    def check_wrapped(self, model: Any) -> None:
        for module in model.modules():
            # peft would take the nearest width that fits
            sizes = getattr(module, "oft_block_size", {"default": self.options.block})
            if sizes["default"] != self.options.block:
                width = module.in_features
                raise self.refusal(f"block {self.options.block} does not divide the width {width}")
