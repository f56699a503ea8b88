"""Word tagging (named entities) with a token classification head: a word gets the tag of its first token."""

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks import batches, labels
from tasks.base import Adapter, Collate, Rows, TaskError
from tasks.config import TaggingConfig

IGNORED = -100
"""The label of a token that is not the first of a word. transformers' loss ignores it."""


class Tagging(Adapter):
    """Predictions and references are lists of tag names, one per word. The loss is over first tokens only.

    The words are joined with blanks, so any tokenizer can be used. A word beyond `max_length`, or without a
    token, is predicted as `O`; it is not left out of the score.
    """

    config: TaggingConfig
    head = "token_classification"

    def model_arguments(self) -> dict[str, Any]:
        return labels.arguments(self.config.names)

    def encode(
        self,
        rows: Rows,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        training: bool = False,
    ) -> dict[str, list[Any]]:
        tags, sentences = self.tags(rows), self.words(rows)
        texts = [" ".join(words) for words in sentences]
        encoded = tokenizer(texts, truncation=True, max_length=max_length)
        features: dict[str, list[Any]] = {"input_ids": encoded["input_ids"], "first": []}
        for words, whole in zip(sentences, encoded.encodings, strict=True):
            features["first"].append(first_tokens(words, whole.offsets, whole.sequence_ids))
        features["tags"] = tags
        features["truncated"] = [bool(whole.overflowing) for whole in encoded.encodings]
        return features

    def words(self, rows: Rows) -> list[list[str]]:
        """The words of each row. Raises TaskError for a row without words or with an empty word."""
        column = self.config.words
        sentences = self.column(rows, column)
        for at, words in enumerate(sentences):
            if not isinstance(words, list | tuple):
                raise TaskError(f"{self.config.name}: column {column}: {words!r} is no list", at)
            for text in words or [""]:
                if not isinstance(text, str) or not text.strip():
                    raise TaskError(f"{self.config.name}: column {column}: empty text {text!r}", at)
        return [list(words) for words in sentences]

    def tags(self, rows: Rows) -> list[list[int]]:
        """The tag indices of each row. Raises TaskError unless there is one tag (`tasks.labels`) per word."""
        column, names = self.config.tags, self.config.names
        indices: list[list[int]] = []
        given = self.column(rows, column)
        for at, (tags, words) in enumerate(zip(given, self.words(rows), strict=True)):
            if not isinstance(tags, list | tuple):
                raise TaskError(f"{self.config.name}: column {column}: {tags!r} is no list", at)
            if len(tags) != len(words):
                raise TaskError(
                    f"{self.config.name}: column {column}: {len(tags)} tags for {len(words)} words",
                    at,
                )
            try:
                indices.append([labels.index(tag, names) for tag in tags])
            except ValueError as error:
                raise TaskError(f"{self.config.name}: column {column}: tag {error}", at) from None
        return indices

    def references(self, rows: Rows) -> list[list[str]]:
        return [[self.config.names[tag] for tag in tags] for tags in self.tags(rows)]

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Collate:
        def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            ids = [feature["input_ids"] for feature in features]
            batch = batches.inputs(ids, tokenizer.pad_token_id, side="right")
            batch["labels"] = torch.full_like(batch["input_ids"], IGNORED)
            for row, feature in enumerate(features):
                for token, tag in zip(feature["first"], feature["tags"], strict=True):
                    if token >= 0:
                        batch["labels"][row, token] = tag
            batch["first"] = batches.padded([feature["first"] for feature in features], -1, "right")
            batch["words"] = torch.tensor([len(feature["first"]) for feature in features])
            return batch

        return collate

    def loss(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        read = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        return model(**read).loss

    def weight(self, batch: Mapping[str, torch.Tensor]) -> int:
        return int((batch["labels"] != IGNORED).sum())

    def predict(
        self,
        model: PreTrainedModel,
        batch: Mapping[str, torch.Tensor],
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[list[str]]:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        first = batch["first"]
        chosen = logits.argmax(-1).gather(1, first.clamp(min=0))
        chosen = chosen.masked_fill(first < 0, self.config.names.index("O")).tolist()
        counts = batch["words"].tolist()
        return [
            [self.config.names[tag] for tag in tags[:count]]
            for tags, count in zip(chosen, counts, strict=True)
        ]


def first_tokens(
    words: Sequence[str],
    offsets: Sequence[tuple[int, int]],
    sequences: Sequence[int | None],
) -> list[int]:
    """The index of each word's first token; -1 if it has none. The text is the words joined with blanks.

    `offsets`: start and end of each token in characters of the text. `sequences`: None for special tokens.
    """
    of_text = [token for token, sequence in enumerate(sequences) if sequence is not None]
    first, start = [], 0
    for word in words:
        number = bisect.bisect_right(of_text, start, key=lambda token: offsets[token][1])
        inside = number < len(of_text) and offsets[of_text[number]][0] < start + len(word)
        first.append(of_text[number] if inside else -1)
        start += len(word) + 1
    return first
