"""Base class of tasks in which a causal LM learns an answer after a prompt. The loss is on the answer."""

import abc
import functools
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks import batches, prompts
from tasks.base import Adapter, Collate, Rows, TaskError, each
from tasks.prompts import Pair


class Answers(Adapter):
    """Features: prompt and answer as one sequence of ids, and the number of answer tokens at its end."""

    head = "causal_lm"
    prompted = True

    @abc.abstractmethod
    def ending(self, tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[int]]:
        """The end of every answer, which is learnt with it: a text, and token ids after that."""

    def needs(self, pair: Pair, training: bool) -> int:
        """The smallest max_length that fits the pair."""
        return len(pair.ids)

    def encode(
        self,
        rows: Rows,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        training: bool = False,
    ) -> dict[str, list[Any]]:
        self.check(rows)
        needs = functools.partial(self.needs, training=training)
        names = ("input_ids", "answer_lengths", *prompts.COUNTED)
        features: dict[str, list[Any]] = {name: [] for name in names}
        for at, row in enumerate(each(rows)):
            encode = functools.partial(self.pair, at=at, tokenizer=tokenizer)
            fit = prompts.fitted_by_words(self, row, encode, tokenizer, max_length, needs)
            (pair,) = fit.pairs
            features["input_ids"].append(pair.ids)
            features["answer_lengths"].append(pair.answer)
            fit.count(features)
        return features

    def demonstrated(self, rows: Rows) -> list[str]:
        self.check(rows)
        return [
            self.render(self.config.prompt, row, at) + self.render(self.config.answer, row, at)
            for at, row in enumerate(each(rows))
        ]

    def check(self, rows: Rows) -> None:
        """Raises TaskError if a template reads a column that `rows` lack."""
        self.columns_of((self.config.prompt, self.config.answer), rows)

    def pair(
        self,
        row: Mapping[str, Any],
        before: str,
        *,
        at: int,
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[Pair]:
        """The prompt of one row, with the text `before` it, and the answer with its ending, as one pair.

        Raises TaskError if there is no token before the answer.
        """
        text, tokens = self.ending(tokenizer)
        prompt = before + self.render(self.config.prompt, row, at).lstrip(" ")
        pair = prompts.pair(prompt, self.render(self.config.answer, row, at) + text, tokenizer)
        ids, answer = pair.ids + tokens, pair.answer + len(tokens)
        if not 0 < answer < len(ids):
            raise TaskError(f"{self.config.name}: there is no token before the answer", at)
        return [Pair(ids, answer)]

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Collate:
        def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            batch = batches.inputs([f["input_ids"] for f in features], tokenizer.pad_token_id)
            batch["answer_lengths"] = torch.tensor([f["answer_lengths"] for f in features])
            return batch

        return collate

    def log_probs(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Log-probabilities (B, A) of the answer tokens; 0 before a shorter answer. A: the longest answer.

        If the batch has them, `seen_ids` are what the model reads in place of `input_ids`, and `counted`
        (B, A) is 0 for the last tokens that are no answer's.
        """
        columns = ("input_ids", "attention_mask", "answer_lengths")
        given = (batch[name] for name in columns)
        return batches.answer_log_probs(
            model,
            *given,
            seen=batch.get("seen_ids"),
            counted=batch.get("counted"),
            chunked=self.chunked,
        )

    def tokens(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The number of answer tokens of each example, (B,)."""
        return batch["answer_lengths"]

    def loss(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return -self.log_probs(model, batch).sum() / self.tokens(batch).sum()

    def weight(self, batch: Mapping[str, torch.Tensor]) -> int:
        return int(self.tokens(batch).sum())
