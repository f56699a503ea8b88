"""Classification and regression of one or two texts with a head: a label, or a number."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from tasks import labels
from tasks.base import Adapter, Collate, Rows, TaskError
from tasks.config import ClassificationConfig, RegressionConfig


class _Head(Adapter):
    """Shared by both: encodes the input texts, and uses the loss that the model computes itself."""

    head = "sequence_classification"

    def encode(
        self,
        rows: Rows,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        training: bool = False,
    ) -> dict[str, list[Any]]:
        texts = [self.texts(rows, template) for template in self.config.inputs]
        encoded = tokenizer(*texts, truncation=True, max_length=max_length)
        self.check_left(encoded.encodings, self.config.inputs, range(len(texts[0])))
        features = {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}
        features["labels"] = self.targets(rows)
        features["truncated"] = [bool(item.overflowing) for item in encoded.encodings]
        return features

    def targets(self, rows: Rows) -> list[Any]:
        """The training target of each row."""
        return self.references(rows)

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Collate:
        return DataCollatorWithPadding(tokenizer)

    def loss(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return model(**batch).loss

    def logits(self, model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The output of the head, (B, labels). The batch's labels are not passed to the model."""
        return model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits


class Classification(_Head):
    """Predictions and references are indices into `config.labels`.

    With `question_id` a reference is a dict of question and label, as the metric multirc expects.
    """

    config: ClassificationConfig

    def model_arguments(self) -> dict[str, Any]:
        return labels.arguments(self.config.labels)

    def targets(self, rows: Rows) -> list[int]:
        return self.labels(rows, self.config.label, self.config.labels)

    def predict(
        self,
        model: PreTrainedModel,
        batch: Mapping[str, torch.Tensor],
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[int]:
        return self.logits(model, batch).argmax(dim=-1).tolist()

    def references(self, rows: Rows) -> list[Any]:
        right = self.targets(rows)
        if self.config.question_id is None:
            return right
        questions = self.texts(rows, self.config.question_id)
        return [
            {"question": question, "label": label}
            for question, label in zip(questions, right, strict=True)
        ]


class Regression(_Head):
    """Predictions and references are numbers; the loss is the mean squared error."""

    config: RegressionConfig

    def model_arguments(self) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression"}

    def predict(
        self,
        model: PreTrainedModel,
        batch: Mapping[str, torch.Tensor],
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[float]:
        return self.logits(model, batch).squeeze(-1).tolist()

    def references(self, rows: Rows) -> list[float]:
        column, (low, high) = self.config.label, self.config.range
        numbers: Sequence[Any] = self.column(rows, column)
        for row, number in enumerate(numbers):
            if not isinstance(number, int | float) or not low <= number <= high:
                raise TaskError(
                    f"{self.config.name}: column {column}: {number!r} is outside {low} to {high}",
                    row,
                )
        return [float(number) for number in numbers]
