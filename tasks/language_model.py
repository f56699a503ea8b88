"""Language modelling by a causal LM: responses to prompts, or texts in blocks; scored by perplexity."""

import bisect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks import metrics
from tasks.answers import Answers
from tasks.base import Rows, TaskError
from tasks.config import LanguageModelConfig, ResponseConfig


class Response(Answers):
    """The likelihood of a response after a prompt.

    A prediction is a list of two: the negative log-likelihood (nats) and the number of tokens it is summed
    over. A reference is the number of words of the answer (split at blanks), which no tokenizer changes.
    """

    config: ResponseConfig | LanguageModelConfig

    def ending(self, tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[int]]:
        return "", [tokenizer.eos_token_id]

    def predict(
        self,
        model: PreTrainedModel,
        batch: Mapping[str, torch.Tensor],
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[list[float]]:
        sums = -self.log_probs(model, batch).double().sum(-1)
        pairs = zip(sums.tolist(), self.tokens(batch).tolist(), strict=True)
        return [[total, tokens] for total, tokens in pairs]

    def references(self, rows: Rows) -> list[int]:
        assert isinstance(self.config, ResponseConfig)  # LanguageModel overrides this method
        return [len(text.split()) for text in self.texts(rows, self.config.answer)]

    def score(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        """Perplexity per token, and per word, which can be compared between tokenizers."""
        totals, tokens = self.for_metrics(predictions, references)
        per_word = metrics.compute("perplexity", totals, references)
        return metrics.compute("perplexity", totals, tokens) | {
            f"word_{name}": value for name, value in per_word.items()
        }

    def for_metrics(
        self, predictions: Sequence[Any], references: Sequence[Any]
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        """The negative log-likelihoods, and the numbers of tokens they are summed over."""
        totals, tokens = zip(*predictions, strict=True)
        return totals, [int(n) for n in tokens]


class LanguageModel(Response):
    """All texts are joined and split into blocks of `max_length` tokens.

    Each block begins with the start token, so that every token of the text is predicted exactly once.
    """

    config: LanguageModelConfig
    prompted = False

    def arrange(
        self, rows: Rows, training: bool, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Rows:
        """The blocks: `tokens` has max_length - 1 ids each, `words` the number of words that start in each.

        Follows transformers' run_clm.py, which has no start token and drops the last, shorter block.
        """
        texts = list(self.column(rows, self.config.text))
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise TaskError(
                    f"{self.config.name}: column {self.config.text}: {text!r} is no text", row
                )
        encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        tokens = list(itertools.chain.from_iterable(encoded["input_ids"]))
        rows_end = list(itertools.accumulate(map(len, encoded["input_ids"])))
        words_before = list(itertools.accumulate((len(text.split()) for text in texts), initial=0))

        def words(position: int) -> int:
            """The number of words that start before the token at `position`."""
            row = bisect.bisect_right(rows_end, position)
            if row == len(texts):
                return words_before[-1]
            start, _ = encoded["offset_mapping"][row][position - rows_end[row]]  # a negative index
            return words_before[row] + len(texts[row][:start].split())

        cuts = [*range(0, len(tokens), max_length - 1), len(tokens)]
        blocks = list(itertools.pairwise(cuts))
        return {
            "tokens": [tokens[start:end] for start, end in blocks],
            "words": [words(end) - words(start) for start, end in blocks],
        }

    def encode(
        self,
        rows: Rows,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        training: bool = False,
    ) -> dict[str, list[Any]]:
        start = tokenizer.bos_token_id
        start = tokenizer.eos_token_id if start is None else start
        return {
            "input_ids": [[start, *tokens] for tokens in rows["tokens"]],
            "answer_lengths": [len(tokens) for tokens in rows["tokens"]],
            "truncated": [False] * len(rows["tokens"]),
        }

    def references(self, rows: Rows) -> list[int]:
        return list(rows["words"])
