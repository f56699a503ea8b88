"""What a task is: the adapter contract, the loader of task YAMLs, the adapters there are. No torch at import.

A task is one YAML under `tasks/configs/`; its name is the path below that folder (`glue/sst2`). With
`include: glue/mnli` it takes over the keys of another. Adapters are classed by how a task is scored;
`ADAPTERS` names each with the type of its YAML.
"""

import abc
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ValidationError

from tasks import config as schemas
from tasks import includes, metrics, templates
from tasks.config import DatasetConfig, TaskConfig
from tasks.names import nearest

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["ADAPTERS", "Adapter", "DatasetConfig", "TaskConfig", "TaskError", "adapter", "load"]

CONFIGS = Path(__file__).parent / "configs"

Rows = Mapping[str, list[Any]]
"""Raw rows as columns of equal length."""

Collate = Callable[[list[dict[str, Any]]], "dict[str, torch.Tensor]"]
"""A list of features -> a padded batch of tensors."""

ADAPTERS: dict[str, tuple[str, type[TaskConfig]]] = {
    "classification": (
        "tasks.classification:Classification",
        schemas.ClassificationConfig,
    ),
    "regression": ("tasks.classification:Regression", schemas.RegressionConfig),
    "masked": ("tasks.masked:Masked", schemas.MaskedConfig),
    "spans": ("tasks.spans:Spans", schemas.SpansConfig),
    "tagging": ("tasks.tagging:Tagging", schemas.TaggingConfig),
    "choice": ("tasks.choice:Choice", schemas.ChoiceConfig),
    "candidates": ("tasks.candidates:Candidates", schemas.CandidatesConfig),
    "generation": ("tasks.generation:Generation", schemas.GenerationConfig),
    "response": ("tasks.language_model:Response", schemas.ResponseConfig),
    "language_model": ("tasks.language_model:LanguageModel", schemas.LanguageModelConfig),
}
"""name -> the adapter as "module:Class", and the type of its tasks' YAMLs."""


NUMBER = "number of the row"
"""A column that `Adapter.arrange` may add: the row of the split that each example begins with."""


class TaskError(ValueError):
    """A task, or a row of its data, is not as its YAML says; names the task, the column and the row.

    `row` is the index of the row at fault among those given, `reason` the message without it.
    """

    def __init__(self, reason: str, row: int | None = None) -> None:
        super().__init__(reason if row is None else f"row {row}: {reason}")
        self.reason, self.row = reason, row


class Adapter(abc.ABC):
    """How a kind of task becomes model input, loss, prediction and score."""

    head: ClassVar[str]
    """The model head this adapter trains: a key of `benchmark.models.registry.HEADS`."""
    prompted: ClassVar[bool] = False
    """Whether there is a prompt, which demonstrations can stand before."""
    generates: ClassVar[bool] = False
    """Whether a prediction is generated token by token, and so costs far more than a forward pass."""

    def __init__(self, config: Any) -> None:
        """`config` is of the type that ADAPTERS gives beside this class."""
        self.config = config
        self.demonstrations: Sequence[str] = ()
        """Texts that `encode` puts before every prompt (in-context), the last of them that fit."""

    def model_arguments(self) -> dict[str, Any]:
        """Extra arguments of the model's `from_pretrained`, such as `num_labels`."""
        return {}

    def arrange(
        self, rows: Rows, training: bool, tokenizer: "PreTrainedTokenizerBase", max_length: int
    ) -> Rows | None:
        """A split's raw rows -> its examples, where an example is not just a row; None where it is.

        With the column NUMBER, where a message about an example can name a row.
        """
        return None

    def demonstrated(self, rows: Rows) -> list[str]:
        """Each row's prompt with its right answer, as a text for `demonstrations`; for a `prompted` one."""
        raise NotImplementedError

    @abc.abstractmethod
    def encode(
        self,
        rows: Rows,
        tokenizer: "PreTrainedTokenizerBase",
        max_length: int,
        training: bool = False,
    ) -> dict[str, list[Any]]:
        """Columns of raw rows -> columns of model features, and `truncated` (one bool per row); with
        demonstrations `shown` as well, how many of them fit beside the row's prompt.

        `input_ids` holds a list of ids per row, or a list of such lists where a row has several inputs.

        An adapter with rows that its own way of shortening cannot fit gives `needs`: the least max_length
        that holds the row. Where this is more, the prompt is cut from the left; where there is nothing of it
        left to cut, `truncated` is false and the row's features are of no use.
        """

    @abc.abstractmethod
    def collator(self, tokenizer: "PreTrainedTokenizerBase") -> Collate:
        """A function from a list of features to a padded batch of tensors; `input_ids` and
        `attention_mask` are (N, L), N at least the number of examples."""

    @abc.abstractmethod
    def loss(self, model: "PreTrainedModel", batch: Mapping[str, "torch.Tensor"]) -> "torch.Tensor":
        """The mean training loss of one batch, a scalar with a graph."""

    @abc.abstractmethod
    def predict(
        self,
        model: "PreTrainedModel",
        batch: Mapping[str, "torch.Tensor"],
        tokenizer: "PreTrainedTokenizerBase",
    ) -> list[Any]:
        """One JSON value per example of the batch, all that scoring needs."""

    @abc.abstractmethod
    def references(self, rows: Rows) -> list[Any]:
        """One JSON value per row: what `predict` is held against."""

    def score(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        """Every metric of the task by its name; deterministic, needs no model."""
        sides = self.for_metrics(predictions, references)
        scores: dict[str, float] = {}
        for name in self.config.metrics:
            scores |= metrics.compute(name, *sides)
        return scores

    def per_example(
        self, predictions: Sequence[Any], references: Sequence[Any]
    ) -> list[float] | None:
        """The main score of each example, which average to that of `score`; None where an example has none.
        `metrics.per_example` says what it is where the main score is no mean over examples."""
        module = self.config.main.partition(".")[0]
        found = metrics.per_example(module, *self.for_metrics(predictions, references))
        return found.get(self.config.main_key)

    def for_metrics(
        self, predictions: Sequence[Any], references: Sequence[Any]
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        """What `predict` and `references` gave, as the metrics take it."""
        return predictions, references

    def column(self, rows: Rows, name: str) -> list[Any]:
        """The column, or with dots what lies within it. Raises TaskError where it is missing."""
        first, _, inner = name.partition(".")
        if first not in rows:
            raise TaskError(
                f"{self.config.name}: column {name} is missing; the data has {', '.join(rows)}"
            )
        if not inner:
            return rows[first]
        found = []
        for row, value in enumerate(rows[first]):
            try:
                found.append(templates.look_up(name, {first: value}))
            except ValueError as error:
                raise TaskError(f"{self.config.name}: {error}", row) from None
        return found

    def labels(self, rows: Rows, name: str, labels: Sequence[str]) -> list[int]:
        """The column's class indices. Raises TaskError naming the row of one that is not among `labels`."""
        found = self.column(rows, name)
        for row, label in enumerate(found):
            if not isinstance(label, int) or not 0 <= label < len(labels):
                said = "is outside" if isinstance(label, int) else "is no index of"
                raise TaskError(
                    f"{self.config.name}: column {name}: label {label!r} {said} {', '.join(labels)}",
                    row,
                )
        return [int(label) for label in found]  # some sources say false and true

    def lists(self, column: Sequence[Any], name: str) -> list[list[str]]:
        """The lists of texts in the column called `name`. Raises TaskError naming the row of one that is
        none, or without any text."""
        for row, texts in enumerate(column):
            is_list = isinstance(texts, list | tuple)
            if not is_list or not all(isinstance(text, str) for text in texts):
                raise TaskError(
                    f"{self.config.name}: column {name}: {texts!r} is no list of texts", row
                )
            if not any(text.strip() for text in texts):
                raise TaskError(f"{self.config.name}: column {name}: empty text {texts!r}", row)
        return [list(texts) for texts in column]

    def texts(self, rows: Rows, template: str) -> list[str]:
        """The template's text for every row (a bare column name is a template too). Raises TaskError naming
        the row and column that cannot be rendered."""
        if "{" not in template:
            template = f"{{{template}}}"
        self.columns_of([template], rows)
        return [self.render(template, row, at) for at, row in enumerate(each(rows))]

    def check_left(
        self, encodings: Sequence[Any], inputs: Sequence[str], rows: Sequence[int]
    ) -> None:
        """Raises TaskError naming the row of the encoding in which one of the `inputs` has no token: the
        tokenizer knows nothing in it, or nothing of it is left at this `max_length`."""
        for encoding, row in zip(encodings, rows, strict=True):
            there = set(encoding.sequence_ids)
            for number, template in enumerate(inputs):
                if number not in there:
                    hint = ": raise max_length" if encoding.overflowing else ""
                    raise TaskError(
                        f"{self.config.name}: no token of {template!r} is left{hint}", row
                    )

    def columns_of(self, wanted: Sequence[str], rows: Rows, made: Sequence[str] = ()) -> None:
        """Raises TaskError for a column that one of the templates reads and the data has not; the adapter
        itself has `made` some."""
        for template in wanted:
            for name in templates.columns(template) - set(made):
                self.column(rows, name)

    def render(self, template: str, row: Mapping[str, Any], at: int) -> str:
        """The template's text for the row numbered `at`."""
        return "".join(text for _, text in self.pieces(template, row, at))

    def pieces(
        self, template: str, row: Mapping[str, Any], at: int
    ) -> list[tuple[str | None, str]]:
        """The same text in pieces, as `templates.pieces` has them."""
        try:
            return templates.pieces(template, row)
        except ValueError as error:
            raise TaskError(f"{self.config.name}: {error}", at) from None


def each(rows: Rows) -> "list[dict[str, Any]]":
    """Columns -> one dict per row."""
    return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]


def label_arguments(labels: Sequence[str]) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a head with these labels, in the order of their indices."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def names() -> list[str]:
    """Every task's name."""
    return sorted(str(p.relative_to(CONFIGS).with_suffix("")) for p in CONFIGS.rglob("*.yaml"))


@functools.cache
def load(name: str) -> TaskConfig:
    """The task called `name`. Raises TaskError naming the file and key; KeyError for an unknown name."""
    known = names()
    if name not in known:
        raise KeyError(name)
    try:
        chain = includes.layers(CONFIGS, name, known)
    except ValueError as error:
        raise TaskError(str(error)) from None
    return parse(name, includes.merged(chain), lambda keys: str(includes.source(chain, keys)))


def parse(
    name: str, content: Mapping[str, Any], where: str | Callable[[Sequence[str | int]], str]
) -> TaskConfig:
    """What a task YAML holds, checked.

    Raises TaskError that begins with `where` and names the keys that lead to the fault; `where` may depend
    on these.
    """
    kind = content.get("adapter")
    keys: Sequence[str | int] = ["adapter"]
    said = f"{kind!r} is not one of {sorted(ADAPTERS)}"
    if kind in ADAPTERS:
        try:
            return ADAPTERS[kind][1](name=name, **content)
        except ValidationError as error:
            first = error.errors()[0]
            keys, said = first["loc"], first["msg"].removeprefix("Value error, ")
            if first["type"] == "extra_forbidden":
                said += _nearest_key(ADAPTERS[kind][1], keys)
    place = where if isinstance(where, str) else where(keys)
    raise TaskError(": ".join(filter(None, (place, ".".join(map(str, keys)), said))))


def _nearest_key(schema: type[BaseModel], keys: Sequence[str | int]) -> str:
    """The hint for an unknown key: a key of `schema`, or of the mapping within it that `keys` lead to."""
    valid = {*schema.model_fields, "include"} - {"name"}
    for key in keys[:-1]:
        inner = schema.model_fields[str(key)].annotation if key in schema.model_fields else None
        if not isinstance(inner, type) or not issubclass(inner, BaseModel):
            return ""
        schema, valid = inner, {*inner.model_fields}
    return nearest(keys[-1], valid)


def adapter(config: TaskConfig) -> Adapter:
    """The adapter that `config` names, made for it."""
    module, _, name = ADAPTERS[config.adapter][0].partition(":")
    made: Adapter = getattr(importlib.import_module(module), name)(config)
    return made
