"""Choice by a causal LM: the prediction is the candidate with the highest mean log-probability per token."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks import batches, prompts
from tasks.base import Adapter, Collate, Rows, TaskError, each
from tasks.config import CandidatesConfig, Columns, Listed, Words


class Candidates(Adapter):
    """Predictions and references are indices of candidates.

    With `Listed` candidates a reference is a dict of all candidates and the right ones, because the metric
    compares texts. Follows arXiv 2305.17333 (MeZO), large_models/utils.py.
    """

    config: CandidatesConfig
    head = "causal_lm"
    prompted = True

    def encode(
        self,
        rows: Rows,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        training: bool = False,
    ) -> dict[str, list[Any]]:
        self.check_columns((self.config.prompt, self.config.answer), rows)
        names = ("input_ids", "answer_lengths", *prompts.COUNTED)
        features: dict[str, list[Any]] = {"labels": self.right(rows)} | {n: [] for n in names}
        for at, row in enumerate(each(rows)):
            encode = functools.partial(self.pairs, at=at, tokenizer=tokenizer)
            fit = prompts.fitted_by_words(self, row, encode, tokenizer, max_length)
            features["input_ids"].append([pair.ids for pair in fit.pairs])
            features["answer_lengths"].append([pair.answer for pair in fit.pairs])
            fit.count(features)
        return features

    def demonstrated(self, rows: Rows) -> list[str]:
        self.check_columns((self.config.prompt, self.config.answer), rows)
        texts = []
        for at, (row, right) in enumerate(zip(each(rows), self.right(rows), strict=True)):
            candidate = self.candidates(row, at)[right]
            answer = self.render(self.config.answer, {**row, "candidate": candidate}, at)
            texts.append(self.render(self.config.prompt, row, at) + answer)
        return texts

    def check_columns(self, templates: Sequence[str], rows: Rows) -> None:
        """Raises TaskError if a template or a candidate reads a column that `rows` lack."""
        chosen = self.config.candidates
        columns = [f"{{{name}}}" for name in chosen.columns] if isinstance(chosen, Columns) else []
        self.columns_of([*templates, *columns], rows, filled_in=("candidate",))

    def pairs(
        self,
        row: Mapping[str, Any],
        before: str,
        *,
        at: int,
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[prompts.Pair]:
        """The prompt of one row, with the text `before` it, and an answer: one pair per candidate.

        Raises TaskError for a candidate that adds no token to the prompt.
        """
        prompt = before + self.render(self.config.prompt, row, at).lstrip(" ")
        pairs = []
        for candidate in self.candidates(row, at):
            answer = self.render(self.config.answer, {**row, "candidate": candidate}, at)
            pair = prompts.pair(prompt, answer, tokenizer)
            if not 0 < pair.answer < len(pair.ids):
                raise TaskError(
                    f"{self.config.name}: {candidate!r} adds no token to the prompt", at
                )
            pairs.append(pair)
        return pairs

    def candidates(self, row: Mapping[str, Any], at: int) -> Sequence[str]:
        """The candidates of one row, as texts."""
        match self.config.candidates:
            case Words(words=words):
                return words
            case Columns(columns=columns):
                return [self.render(f"{{{column}}}", row, at) for column in columns]
            case Listed(list=column):
                return row[column]

    def right(self, rows: Rows) -> list[int]:
        """The index of each row's right candidate; of the first if several are right."""
        chosen = self.config.candidates
        if isinstance(chosen, Listed):
            indices = []
            columns = (self.lists(self.column(rows, n), n) for n in (chosen.list, chosen.right))
            for at, (candidates, right) in enumerate(zip(*columns, strict=True)):
                if "" in map(str.strip, candidates):
                    raise TaskError(f"{self.config.name}: column {chosen.list}: empty text ''", at)
                known = [candidates.index(text) for text in right if text in candidates]
                if not known:
                    raise TaskError(
                        f"{self.config.name}: column {chosen.right}: {right!r} is not among "
                        f"the candidates of column {chosen.list}",
                        at,
                    )
                indices.append(known[0])
            return indices
        names = chosen.words if isinstance(chosen, Words) else chosen.columns
        return self.labels(rows, chosen.label, names)

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Collate:
        def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            batch = batches.inputs(
                [ids for feature in features for ids in feature["input_ids"]],
                tokenizer.pad_token_id,
            )
            lengths = [n for feature in features for n in feature["answer_lengths"]]
            batch["answer_lengths"] = torch.tensor(lengths)
            batch["counts"] = torch.tensor([len(feature["input_ids"]) for feature in features])
            batch["labels"] = torch.tensor([feature["labels"] for feature in features])
            return batch

        return collate

    def loss(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        counts, labels = batch["counts"], batch["labels"]
        if self.config.loss == "answer":
            right = counts.cumsum(0) - counts + labels
            lengths = batch["answer_lengths"][right]
            tokens = batches.answer_log_probs(
                model,
                batch["input_ids"][right],
                batch["attention_mask"][right],
                lengths,
                chunked=self.chunked,
            )
            return -tokens.sum() / lengths.sum()
        return over_candidates(self.scores(model, batch, len(batch["input_ids"])), counts, labels)

    def weight(self, batch: Mapping[str, torch.Tensor]) -> int:
        if self.config.loss != "answer":
            return super().weight(batch)
        counts = batch["counts"]
        return int(batch["answer_lengths"][counts.cumsum(0) - counts + batch["labels"]].sum())

    def scores(
        self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor], at_once: int
    ) -> torch.Tensor:
        """The mean log-probability (N,) of each of the N candidates; `at_once` are in one forward pass."""
        columns = [batch[name] for name in ("input_ids", "attention_mask", "answer_lengths")]
        return torch.cat(
            [
                batches.answer_log_probs(model, *part, chunked=self.chunked).sum(-1) / part[2]
                for part in zip(*(column.split(at_once) for column in columns), strict=True)
            ]
        )

    def predict(
        self,
        model: PreTrainedModel,
        batch: Mapping[str, torch.Tensor],
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[int]:
        counts = batch["counts"].tolist()
        scores = self.scores(
            model, batch, len(counts)
        )  # one input per row at once, as in other tasks
        return [int(row_scores.argmax()) for row_scores in scores.split(counts)]

    def references(self, rows: Rows) -> list[Any]:
        right, chosen = self.right(rows), self.config.candidates
        if isinstance(chosen, Listed):
            pairs = zip(rows[chosen.list], rows[chosen.right], strict=True)
            return [{"candidates": list(all_), "right": list(right)} for all_, right in pairs]
        return right

    def for_metrics(
        self, predictions: Sequence[Any], references: Sequence[Any]
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        if not isinstance(self.config.candidates, Listed):
            return predictions, references
        pairs = zip(predictions, references, strict=True)
        chosen = [reference["candidates"][index] for index, reference in pairs]
        return chosen, [reference["right"] for reference in references]


def over_candidates(
    scores: torch.Tensor, counts: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """The mean cross-entropy over rows. `scores` (N,): all candidates; `counts` (B,): the number of each
    row's; `labels` (B,): the index of each row's right one."""
    table = torch.nn.utils.rnn.pad_sequence(
        scores.split(counts.tolist()), batch_first=True, padding_value=float("-inf")
    )
    return functional.cross_entropy(table, labels)
