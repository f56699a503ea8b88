"""Prompt-based fine-tuning of a masked LM (LM-BFF, arXiv 2012.15723): predicts a label word at the mask."""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks import batches, prompts
from tasks.base import Adapter, Collate, Rows, TaskError, each
from tasks.config import MaskedConfig

Part = tuple[str | None, list[int]]
"""A piece of a prompt: its column ("mask" for the mask, None for literal text) and its token ids."""


class Masked(Adapter):
    """Predictions and references are label indices.

    If each word is one token, this is LM-BFF's softmax over the words' logits at the mask, as in
    princeton-nlp/MeZO medium_models/src/models.py. With `several_tokens`, every prompt has as many masks as
    the longest word has tokens. The score of a word is then the mean log-probability of its tokens at the
    first masks.
    """

    config: MaskedConfig
    head = "masked_lm"
    prompted = True

    def words(self, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        """The token ids of each label's word.

        Raises TaskError for a word that the tokenizer does not know, that it splits (unless `several_tokens`)
        or that has the same tokens as another.
        """
        words: list[list[int]] = []
        for word in self.config.words:
            ids = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
            subject = f"{self.config.name}: words: the tokenizer of {tokenizer.name_or_path} "
            if not ids or tokenizer.unk_token_id in ids:
                raise TaskError(f"{subject}does not know {word!r}")
            if len(ids) > 1 and not self.config.several_tokens:
                pieces = " ".join(tokenizer.convert_ids_to_tokens(ids))
                raise TaskError(f"{subject}splits {word!r} into {pieces}, and one token is needed")
            if ids in words:
                other = self.config.words[words.index(ids)]
                raise TaskError(f"{subject}does not tell {word!r} from {other!r}")
            words.append(ids)
        return words

    def encode(
        self,
        rows: Rows,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        training: bool = False,
    ) -> dict[str, list[Any]]:
        self.columns_of([self.config.prompt], rows, filled_in=("mask",))
        masks = [tokenizer.mask_token_id] * max(map(len, self.words(tokenizer)))
        names = ("input_ids", *prompts.COUNTED)
        features: dict[str, list[Any]] = {name: [] for name in names}
        for at, row in enumerate(each(rows)):
            parts = self._parts(row, at, tokenizer, masks)
            fit = prompts.fitted(
                functools.partial(self._pair, parts, at=at, tokenizer=tokenizer, masks=len(masks)),
                max(len(ids) for column, ids in parts if column == self.config.cut),
                max_length,
                limit=self.config.limit,
                special=(tokenizer.cls_token_id,),
                demonstrations=self.demonstrations,
            )
            (pair,) = fit.pairs
            features["input_ids"].append(pair.ids)
            fit.count(features)
        return features | {"labels": self.references(rows)}

    def _pair(
        self,
        parts: list[Part],
        count: int,
        before: str,
        *,
        at: int,
        tokenizer: PreTrainedTokenizerBase,
        masks: int,
    ) -> list[prompts.Pair]:
        """The text `before` and the parts, between the model's special tokens. The masks are the answer.

        Only the first `count` tokens of the column `cut` are used. LM-BFF shortens a long row differently: it
        cuts everything beyond `max_length`, and fails if the mask is cut.
        """
        ids: list[Any] = [tokenizer.cls_token_id, *self._tokens(before, tokenizer, at)]
        for column, tokens in parts:
            ids += tokens[:count] if column == self.config.cut else tokens
        ids.append(tokenizer.sep_token_id)
        masks_end = ids.index(tokenizer.mask_token_id) + masks
        return [prompts.Pair(ids, masks, after=len(ids) - masks_end)]

    def _parts(
        self,
        row: Mapping[str, Any],
        at: int,
        tokenizer: PreTrainedTokenizerBase,
        masks: list[int],
    ) -> list[Part]:
        """The prompt's pieces, each tokenised separately, as in LM-BFF's `tokenize_multipart_input`.

        So a blank at the end of a sentence is a token, and no token spans two pieces.
        """
        parts: list[Part] = []
        for column, text in self.pieces(self.config.prompt, {**row, "mask": "mask"}, at):
            if column == "mask":
                parts.append((column, masks))
            elif column is None and len(text) == 1:  # some tokenizers would put a blank before it
                token: Any = tokenizer.convert_tokens_to_ids(
                    text
                )  # one id, because `text` is not a list
                parts.append((column, [token]))
            else:
                parts.append((column, self._tokens(text, tokenizer, at)))
        return parts

    def _tokens(self, text: str, tokenizer: PreTrainedTokenizerBase, at: int) -> list[int]:
        """The token ids of a text. Raises TaskError if it contains the mask token."""
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        if tokenizer.mask_token_id in ids:
            raise TaskError(
                f"{self.config.name}: a text contains {tokenizer.mask_token}, the mask token", at
            )
        return ids

    def demonstrated(self, rows: Rows) -> list[str]:
        self.columns_of([self.config.prompt], rows, filled_in=("mask",))
        words = [self.config.words[label] for label in self.references(rows)]
        return [
            self.render(self.config.prompt, {**row, "mask": f" {word}"}, at)
            for at, (row, word) in enumerate(zip(each(rows), words, strict=True))
        ]

    def references(self, rows: Rows) -> list[int]:
        return self.labels(rows, self.config.label, self.config.words)

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Collate:
        words = batches.padded(self.words(tokenizer), -1, "right")

        def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            ids = [feature["input_ids"] for feature in features]
            batch = batches.inputs(ids, tokenizer.pad_token_id, side="right")
            at_masks = batch["input_ids"] == tokenizer.mask_token_id
            batch["masks"] = at_masks.nonzero()[:, 1].view(len(ids), -1)
            batch["words"] = words
            batch["labels"] = torch.tensor([feature["labels"] for feature in features])
            return batch

        return collate

    def scores(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The mean log-probability (B, C) of each word's tokens at the masks."""
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        masks, words = batch["masks"], batch["words"]  # (B, M) positions, (C, M) tokens or -1
        rows = torch.arange(len(logits), device=logits.device)[:, None]
        at_masks = logits[rows, masks].float().log_softmax(-1)  # (B, M, vocabulary)
        position = torch.arange(words.shape[1], device=words.device)
        chosen = at_masks[:, position, words.clamp(min=0)]  # (B, C, M)
        used = words >= 0
        return (chosen * used).sum(-1) / used.sum(-1)

    def loss(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return functional.cross_entropy(self.scores(model, batch), batch["labels"])

    def predict(
        self,
        model: PreTrainedModel,
        batch: Mapping[str, torch.Tensor],
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[int]:
        return self.scores(model, batch).argmax(-1).tolist()
