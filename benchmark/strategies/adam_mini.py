"""Adam-mini: Adam with one second moment for each head, output neuron or token (arXiv 2406.16793)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from benchmark.strategies.base import Card, Options, TuningStrategy

if TYPE_CHECKING:
    import torch

    from benchmark.strategies.rules.adam_mini import Blocks

QUERIES_AND_KEYS = ("query", "key", "q_proj", "k_proj", "q_lin", "k_lin")
"""Names of linear layers whose outputs are the heads' queries or keys."""
Beta = Annotated[float, Field(ge=0, lt=1)]


class AdamMiniOptions(Options):
    """betas and eps are Adam's."""

    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8


class AdamMini(TuningStrategy):
    """All parameters train. The state is half of AdamW's.

    The blocks are those of the paper's Algorithm 3: a head of queries or keys, an output neuron of any other
    matrix, a token of the embeddings, a norm; a bias has one second moment a number.
    """

    card = Card(
        paper="arXiv 2406.16793",
        reference="the package adam-mini 1.1.1, which cannot train BERT (IndexError at the norm "
        "attention.output.LayerNorm) and finds no queries and keys in GPT-2",
        checked="against the package on LLaMA and against Algorithm 1 written out",
    )

    Options = AdamMiniOptions
    refuses: ClassVar[Mapping[str, str]] = {
        "sharded": "a block of numbers with one second moment may lie on several devices"
    }
    optimizers = ()

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        from benchmark.strategies.rules.adam_mini import AdamMini

        assert self.settings.lr is not None
        rule = AdamMini(
            self.decay_groups(model),
            blocks(model),
            lr=self.settings.lr,
            betas=self.options.betas,
            eps=self.options.eps,
        )
        return rule, self.scheduler(rule, total_steps)


def blocks(model: torch.nn.Module) -> dict[torch.nn.Parameter, Blocks]:
    """The blocks of every parameter of a transformers model."""
    from transformers.pytorch_utils import Conv1D

    from benchmark.strategies.rules.adam_mini import Blocks

    config: Any = model.config
    found: dict[torch.nn.Parameter, Blocks] = {}
    for path, module in model.named_modules():
        layer = path.rpartition(".")[2]
        for name, parameter in module.named_parameters(recurse=False):
            outputs = 1 if isinstance(module, Conv1D) and parameter.ndim == 2 else 0
            size = parameter.shape[outputs]
            if parameter.ndim == 1:
                parts = [(size, size if name == "bias" else 1)]
            elif layer in QUERIES_AND_KEYS:
                parts = [(size, size // _head_size(config))]
            elif layer == "c_attn" and isinstance(module, Conv1D):  # queries, keys and values
                third = size // 3
                heads = third // _head_size(config)
                parts = [(third, heads), (third, heads), (third, third)]
            else:
                parts = [(size, size)]
            found.setdefault(parameter, Blocks(outputs, tuple(parts)))
    return found


def _head_size(config: Any) -> int:
    size: int | None = getattr(config, "head_dim", None)
    return size or config.hidden_size // config.num_attention_heads
