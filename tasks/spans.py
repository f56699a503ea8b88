"""Extractive question answering with a head (SQuAD): the span of the context that is the answer."""

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks import batches, prompts
from tasks.base import Adapter, Collate, Rows, TaskError
from tasks.config import SpansConfig

OUTSIDE = (-1, -1)
"""The character offsets of a token outside the context."""


class Spans(Adapter):
    """Predictions are texts; references are lists of right texts.

    A long context is split into windows, each with the whole question and a part of the context, so none of
    the context is cut. The labels of a window that lacks part of the answer are both its first token.
    Windows, labels and the choice of the answer follow transformers
    examples/pytorch/question-answering/run_qa.py, with one difference: all pairs of start and end are
    compared, not only those of the 20 best starts and ends. A question that leaves no room for the context is
    cut at its start.
    """

    config: SpansConfig
    head = "question_answering"

    def encode(
        self,
        rows: Rows,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        training: bool = False,
    ) -> dict[str, list[Any]]:
        questions, contexts = self.texts(rows, self.config.question), self.contexts(rows)
        answers = self.places(rows)
        stride = min(self.config.stride, max_length // 3)
        special = tokenizer.num_special_tokens_to_add(pair=True)
        room = (
            max_length - special - stride - 1
        )  # each window adds at least one new token of the context
        if room < 1:
            raise TaskError(
                f"{self.config.name}: no room for a question and its context: raise max_length"
            )
        needs, truncated = [], []
        for at, ids in enumerate(tokenizer(questions, add_special_tokens=False)["input_ids"]):
            fixed = len(ids) + special
            needs.append(min(fixed + self.config.stride, 3 * fixed // 2) + 1)
            truncated.append(len(ids) > room)
            if len(ids) > room:
                questions[at] = prompts.ending(questions[at], room, tokenizer)
        encoded = tokenizer(
            questions,
            contexts,
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
        )
        names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
        features: dict[str, list[Any]] = {
            name: [[] for _ in contexts] for name in (*names, "offsets", "labels")
        }
        for window, at in enumerate(encoded["overflow_to_sample_mapping"]):
            whole = encoded.encodings[window]
            offsets = [
                place if sequence == 1 else OUTSIDE
                for place, sequence in zip(whole.offsets, whole.sequence_ids, strict=True)
            ]
            for name in names:
                features[name][at].append(encoded[name][window])
            features["offsets"][at].append(offsets)
            features["labels"][at].append(labels(offsets, *answers[at]))
        return features | {"context": contexts, "truncated": truncated, "needs": needs}

    def contexts(self, rows: Rows) -> list[str]:
        """The contexts, unchanged, because the answers' offsets count their characters."""
        contexts = self.column(rows, self.config.context)
        for at, text in enumerate(contexts):
            if not isinstance(text, str) or not text.strip():
                raise TaskError(
                    f"{self.config.name}: column {self.config.context}: empty text {text!r}", at
                )
        return list(contexts)

    def places(self, rows: Rows) -> list[tuple[int, int]]:
        """The start and end (exclusive) of each row's first answer, in characters of the context."""
        starts = self.column(rows, f"{self.config.answers}.answer_start")
        spans = []
        for at, (start, texts, context) in enumerate(
            zip(starts, self.references(rows), self.contexts(rows), strict=True)
        ):
            end = start[0] + len(texts[0]) if start else -1
            if not 0 <= end - len(texts[0]) < end <= len(context):
                raise TaskError(
                    f"{self.config.name}: column {self.config.answers}: {texts[0]!r} at {start} is "
                    f"outside the {len(context)} characters of {self.config.context}",
                    at,
                )
            spans.append((start[0], end))
        return spans

    def references(self, rows: Rows) -> list[list[str]]:
        answers = self.column(rows, f"{self.config.answers}.text")
        for at, texts in enumerate(answers):
            if not texts:
                raise TaskError(f"{self.config.name}: column {self.config.answers}: no answer", at)
        return [list(texts) for texts in answers]

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Collate:
        def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            def windows(name: str) -> list[Any]:
                return [window for feature in features for window in feature[name]]

            batch = batches.inputs(windows("input_ids"), tokenizer.pad_token_id, side="right")
            if "token_type_ids" in features[0]:
                batch["token_type_ids"] = batches.padded(windows("token_type_ids"), 0, "right")
            ends = [
                batches.padded([[token[i] for token in w] for w in windows("offsets")], -1, "right")
                for i in (0, 1)
            ]
            batch["offsets"] = torch.stack(ends, dim=-1)
            batch["labels"] = torch.tensor(windows("labels"))
            batch["counts"] = torch.tensor([len(feature["input_ids"]) for feature in features])
            characters = [list(map(ord, feature["context"])) for feature in features]
            batch["context"] = batches.padded(characters, 0, "right")
            return batch

        return collate

    def loss(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The mean of the cross-entropies of start and end. The softmax leaves out padding."""
        output = model(**read(batch))
        padding = batch["attention_mask"] == 0
        start, end = (
            functional.cross_entropy(logits.float().masked_fill(padding, float("-inf")), labels)
            for logits, labels in zip(
                (output.start_logits, output.end_logits), batch["labels"].unbind(-1), strict=True
            )
        )
        return (start + end) / 2

    def weight(self, batch: Mapping[str, torch.Tensor]) -> int:
        return len(batch["input_ids"])

    def predict(
        self,
        model: PreTrainedModel,
        batch: Mapping[str, torch.Tensor],
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[str]:
        counts = batch["counts"].tolist()
        inputs = read(batch)
        offsets = batch["offsets"].split(
            len(counts)
        )  # one window per row at once, as in other tasks
        parts = zip(
            *(tensor.split(len(counts)) for tensor in inputs.values()), offsets, strict=True
        )
        scores, places = [], []
        for *tensors, windows in parts:
            output = model(**dict(zip(inputs, tensors, strict=True)))
            best = best_spans(
                output.start_logits, output.end_logits, windows, self.config.max_answer_tokens
            )
            scores.append(best[0])
            places.append(best[1])
        texts = []
        of_rows = zip(
            torch.cat(scores).split(counts),
            torch.cat(places).split(counts),
            batch["context"].tolist(),
            strict=True,
        )
        for scores_of_row, places_of_row, characters in of_rows:
            start, end = places_of_row[scores_of_row.argmax()].tolist()
            texts.append("".join(map(chr, characters[start:end])).strip())
        return texts


def read(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a batch that the model reads, each (windows, L)."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return {name: batch[name] for name in names if name in batch}


def labels(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """The answer's first and last token (characters `start` to `end`); (0, 0) if the window lacks one."""
    of_context = [token for token, place in enumerate(offsets) if place != OUTSIDE]
    if not of_context or offsets[of_context[0]][0] > start or offsets[of_context[-1]][1] < end:
        return 0, 0
    first = bisect.bisect_right(of_context, start, key=lambda token: offsets[token][0]) - 1
    last = bisect.bisect_left(of_context, end, key=lambda token: offsets[token][1])
    return of_context[first], of_context[last]


def best_spans(
    starts: torch.Tensor, ends: torch.Tensor, offsets: torch.Tensor, longest: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best span of each window: its score (W,) and its start and end in characters (W, 2).

    The score is the sum of the start and the end logit. `starts`, `ends`: logits (W, L). `offsets`:
    characters of each token (W, L, 2). A span is inside the context and has at most `longest` tokens.
    """
    outside = offsets[..., 0] < 0
    starts = starts.float().masked_fill(outside, float("-inf"))
    ends = ends.float().masked_fill(outside, float("-inf"))
    tokens = starts.shape[1]
    of_length = [  # (W, L) for each number of tokens after the first
        functional.pad(starts[:, : tokens - more] + ends[:, more:], (0, more), value=float("-inf"))
        for more in range(min(longest, tokens))
    ]
    scores, best = torch.stack(of_length, dim=1).flatten(1).max(1)
    more, first = best // tokens, best % tokens
    row = torch.arange(len(best), device=best.device)
    return scores, torch.stack([offsets[row, first, 0], offsets[row, first + more, 1]], dim=-1)
