"""MFT, masked thought fine-tuning: the model does not see some tokens of the answer (arXiv 2403.02178)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from benchmark.strategies.base import Card, Options
from benchmark.strategies.full import Full

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Share = Annotated[float, Field(ge=0, le=1)]


class MftOptions(Options):
    """ratio: the share of the answer's tokens that are masked. rise: the share of the training over which the
    ratio rises to that from 0. replace_rate: the share of the masked tokens in whose place a random token
    stands; in that of the others it is the padding token. The defaults are the authors' for GSM8K, but for
    replace_rate, which is 1 in their script and 0 in the paper's definition."""

    ratio: Share = 0.4
    rise: Share = 0.66
    replace_rate: Share = 0.0


class Mft(Full):
    """Full fine-tuning on masked answers: rationale and result, as in the authors' code, each token drawn on
    its own. Every token of the answer, masked or not, is still predicted.

    The vocabulary has no mask token; the padding token stands for it, as the authors propose.
    """

    card = Card(
        paper="arXiv 2403.02178",
        reference="github.com/AlibabaResearch/DAMO-ConvAI, MaskedThought/README.md (mask_target_tokens)",
        checked="against the definition token by token: what is masked, what is predicted, the share",
    )

    Options = MftOptions
    starts_again = "the masks are drawn by a generator of their own"
    needs_answers = True

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        import torch

        self._mask, self._vocabulary = model.config.pad_token_id, model.config.vocab_size
        self._generator = torch.Generator().manual_seed(self.settings.seed)
        return super().prepare(model)

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        optimizer, self._scheduler = super().optimizer(model, total_steps)
        self._rising = self.options.rise * total_steps
        return optimizer, self._scheduler

    def batch(self, batch: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """The batch with `seen_ids`: `input_ids` (N, L) with tokens masked among the last `answer_lengths`
        (N,) of each row."""
        import torch

        ids, lengths = batch["input_ids"], batch["answer_lengths"]
        step = self._scheduler.last_epoch + 1
        ratio = self.options.ratio * min(1.0, step / max(1.0, self._rising))
        masked, replaced = (
            torch.rand(ids.shape, generator=self._generator) < share
            for share in (ratio, self.options.replace_rate)
        )
        tokens = torch.randint(self._vocabulary, ids.shape, generator=self._generator)
        tokens = tokens.where(replaced, self._mask).to(ids.device)
        columns = torch.arange(ids.shape[1], device=ids.device)
        answer = columns >= ids.shape[1] - lengths[:, None]
        return {**batch, "seen_ids": tokens.where(answer & masked.to(ids.device), ids)}
