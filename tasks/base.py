"""The base class of adapters, the list of adapters, and the loader of task YAMLs. Imports no torch.

A task is one YAML file in `tasks/configs/`. Its name is its path there without the suffix (`glue/sst2`). With
`include: glue/mnli` it takes over the keys of another task. An adapter implements one kind of task, such as
classification or generation.
"""

import abc
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError

from tasks import config as schemas
from tasks import includes, metrics, templates
from tasks import labels as class_labels
from tasks.chat_config import ChatConfig
from tasks.config import DatasetConfig, TaskConfig
from tasks.names import complaint

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["ADAPTERS", "Adapter", "DatasetConfig", "TaskConfig", "TaskError", "adapter", "load"]

CONFIGS = Path(__file__).parent / "configs"

Rows = Mapping[str, list[Any]]
"""Raw rows as columns of equal length."""

Collate = Callable[[list[dict[str, Any]]], "dict[str, torch.Tensor]"]
"""A function from a list of examples (features by name) to a padded batch of tensors."""

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
    "chat": ("tasks.chat:Chat", ChatConfig),
}
"""name -> the adapter as "module:Class", and the schema of its task YAMLs."""
HEADS = {
    **dict.fromkeys(("classification", "regression", "choice"), "sequence_classification"),
    "spans": "question_answering",
    "tagging": "token_classification",
    "masked": "masked_lm",
    **dict.fromkeys(
        ("candidates", "generation", "response", "language_model", "chat"), "causal_lm"
    ),
}
"""Adapter -> its `Adapter.head`, for a plan or a list, which import no torch."""

NUMBER = "number of the row"
"""A column that `Adapter.arrange` may add: the number of each example's first row."""


class TaskError(ValueError):
    """A task YAML is wrong, or a row of the data does not match it. The message names task, column and row.

    `row`: index of the row among those passed to the adapter, or None. `reason`: the message without the row.
    """

    def __init__(self, reason: str, row: int | None = None) -> None:
        super().__init__(reason if row is None else f"row {row}: {reason}")
        self.reason, self.row = reason, row


class Adapter(abc.ABC):
    """The model inputs, loss, predictions and scores of one kind of task."""

    head: ClassVar[str]
    """The model head that the task needs: a key of `benchmark.models.facts.HEADS`."""
    prompted: ClassVar[bool] = False
    """Whether the input is a prompt, so that demonstrations can precede it."""
    generates: ClassVar[bool] = False
    """Whether a prediction is generated token by token, which takes far longer than a forward pass."""

    def __init__(self, config: Any) -> None:
        """`config`: an instance of the schema in this adapter's entry of ADAPTERS."""
        self.config = config
        self.demonstrations: Sequence[str] = ()
        """In-context demonstrations. `encode` puts as many of the last ones as fit before every prompt."""
        self.chunked = False
        """Whether the logits of a causal LM are computed in chunks, so that the whole never exist."""

    def model_arguments(self) -> dict[str, Any]:
        """Extra arguments of the model's `from_pretrained`, such as `num_labels`."""
        return {}

    def arrange(
        self, rows: Rows, training: bool, tokenizer: "PreTrainedTokenizerBase", max_length: int
    ) -> Rows | None:
        """Examples made of the raw `rows` of a split. None if each row is one example (the default).

        The column NUMBER, if present, has the number of each example's first row, for messages.
        """
        return None

    def demonstrated(self, rows: Rows) -> list[str]:
        """Each row as a demonstration: its prompt and right answer as text. Only for `prompted` adapters."""
        raise NotImplementedError

    @abc.abstractmethod
    def encode(
        self,
        rows: Rows,
        tokenizer: "PreTrainedTokenizerBase",
        max_length: int,
        training: bool = False,
    ) -> dict[str, list[Any]]:
        """The model's features of the raw `rows`, as columns with one entry per row.

        `input_ids` has a list of token ids per row, or a list of such lists if a row has several inputs.
        `truncated` (bool) says whether text of the row was cut. `shown` (prompted adapters only) is the
        number of demonstrations before the prompt. `needs` (only adapters whose own shortening can fail) is
        the smallest max_length that fits the row after that shortening.

        If `needs` is more than `max_length`, more of the input was cut from the left. If the answer alone is
        too long, `truncated` is False and the row's features must not be used. Raises TaskError for a row
        that does not match the task's YAML.
        """

    @abc.abstractmethod
    def collator(self, tokenizer: "PreTrainedTokenizerBase") -> Collate:
        """A function that pads a list of examples to a batch of tensors.

        `input_ids` and `attention_mask` have shape (N, L). N is the number of inputs, at least one per
        example; L is the length of the longest.
        """

    @abc.abstractmethod
    def loss(self, model: "PreTrainedModel", batch: Mapping[str, "torch.Tensor"]) -> "torch.Tensor":
        """The mean training loss of one batch: a scalar tensor with an autograd graph."""

    def weight(self, batch: Mapping[str, "torch.Tensor"]) -> int:
        """How many losses `loss` is the mean of; by default one of each example."""
        return len(batch.get("counts", batch["input_ids"]))

    @abc.abstractmethod
    def predict(
        self,
        model: "PreTrainedModel",
        batch: Mapping[str, "torch.Tensor"],
        tokenizer: "PreTrainedTokenizerBase",
    ) -> list[Any]:
        """The predictions of a batch: one JSON value per example, without logits."""

    @abc.abstractmethod
    def references(self, rows: Rows) -> list[Any]:
        """The references: one JSON value per row, in the form that the metrics compare with `predict`."""

    def score(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        """All scores of the task's metrics, by name. Deterministic; needs no model."""
        sides = self.for_metrics(predictions, references)
        scores: dict[str, float] = {}
        for name in self.config.metrics:
            scores |= metrics.compute(name, *sides)
        return scores

    def per_example(
        self, predictions: Sequence[Any], references: Sequence[Any]
    ) -> list[float] | None:
        """The main score of each example. Their mean is the main score of `score`.

        None if the metric has no scores per example. If the main score is not a mean over examples, they are
        jackknife values (`metrics.per_example`).
        """
        module = self.config.main.partition(".")[0]
        scores = metrics.per_example(module, *self.for_metrics(predictions, references))
        return scores.get(self.config.main_key)

    def for_metrics(
        self, predictions: Sequence[Any], references: Sequence[Any]
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        """Predictions and references in the form that the task's metrics expect."""
        return predictions, references

    def column(self, rows: Rows, name: str) -> list[Any]:
        """A column, or with dots in the name the values inside it. Raises TaskError if it is missing."""
        first, _, inner = name.partition(".")
        if first not in rows:
            raise TaskError(
                f"{self.config.name}: column {name} is missing; the data has {', '.join(rows)}"
            )
        if not inner:
            return rows[first]
        values = []
        for row, value in enumerate(rows[first]):
            try:
                values.append(templates.look_up(name, {first: value}))
            except ValueError as error:
                raise TaskError(f"{self.config.name}: {error}", row) from None
        return values

    def labels(self, rows: Rows, name: str, labels: Sequence[str]) -> list[int]:
        """A column of classes, given by index or text (`tasks.labels`), as indices. Raises TaskError."""
        indices = []
        for row, value in enumerate(self.column(rows, name)):
            try:
                indices.append(class_labels.index(value, labels))
            except ValueError as error:
                raise TaskError(f"{self.config.name}: column {name}: label {error}", row) from None
        return indices

    def lists(self, column: Sequence[Any], name: str) -> list[list[str]]:
        """A column of lists of texts; `name` is its name, for messages.

        Raises TaskError for a value that is not a list of texts, and for a list without a non-blank text.
        """
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
        """The text of a template, or of a column given by its bare name, for every row.

        Raises TaskError for a row that cannot be rendered.
        """
        if "{" not in template:
            template = f"{{{template}}}"
        self.columns_of([template], rows)
        return [self.render(template, row, at) for at, row in enumerate(each(rows))]

    def check_left(
        self, encodings: Sequence[Any], inputs: Sequence[str], rows: Sequence[int]
    ) -> None:
        """Raises TaskError if an encoding has no token of one of its `inputs` (templates).

        Either the tokenizer makes no token of that input, or truncation has removed all of it. `rows`: the
        row index of each encoding, for the message.
        """
        for encoding, row in zip(encodings, rows, strict=True):
            present = set(encoding.sequence_ids)
            for number, template in enumerate(inputs):
                if number not in present:
                    hint = ": raise max_length" if encoding.overflowing else ""
                    raise TaskError(
                        f"{self.config.name}: no token of {template!r} is left{hint}", row
                    )

    def columns_of(self, wanted: Sequence[str], rows: Rows, filled_in: Sequence[str] = ()) -> None:
        """Raises TaskError if a template in `wanted` reads a column that `rows` lack.

        `filled_in`: names that the adapter itself fills in, such as "candidate".
        """
        for template in wanted:
            for name in templates.columns(template) - set(filled_in):
                self.column(rows, name)

    def render(self, template: str, row: Mapping[str, Any], at: int) -> str:
        """The text of a template for one row. `at`: the index of the row, for messages."""
        return "".join(text for _, text in self.pieces(template, row, at))

    def pieces(
        self, template: str, row: Mapping[str, Any], at: int
    ) -> list[tuple[str | None, str]]:
        """The same text as `render`, in pieces (see `templates.pieces`)."""
        try:
            return templates.pieces(template, row)
        except ValueError as error:
            raise TaskError(f"{self.config.name}: {error}", at) from None


def each(rows: Rows) -> "list[dict[str, Any]]":
    """Columns -> one dict per row."""
    return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]


def names() -> list[str]:
    """The names of all tasks, sorted."""
    return sorted(str(p.relative_to(CONFIGS).with_suffix("")) for p in CONFIGS.rglob("*.yaml"))


@functools.cache
def load(name: str) -> TaskConfig:
    """The configuration of a task. Raises KeyError for an unknown name, TaskError for a wrong YAML."""
    known = names()
    if name not in known:
        raise KeyError(name)
    try:
        chain = includes.layers(CONFIGS / f"{name}.yaml", CONFIGS, known)
    except ValueError as error:
        raise TaskError(str(error)) from None
    return parse(name, includes.merged(chain), lambda keys: str(includes.source(chain, keys)))


def parse(
    name: str,
    content: Mapping[str, Any],
    where: str | Callable[[Sequence[str | int]], str],
    also: Sequence[str] = (),
) -> TaskConfig:
    """The configuration of the task `name`, from the `content` of its YAML.

    Raises TaskError whose message starts with `where` and names the wrong key. `where` is the file, or a
    function that returns the file of a (nested) key. `also`: keys that the YAML may have beside those of
    `content`, for the hint to the nearest.
    """
    kind = content.get("adapter")
    keys: Sequence[str | int] = ["adapter"]
    reason = f"{kind!r} is not one of {sorted(ADAPTERS)}"
    if kind in ADAPTERS:
        try:
            return ADAPTERS[kind][1](name=name, **content)
        except ValidationError as error:
            schema = ADAPTERS[kind][1]
            valid = {*schema.model_fields, "include", *also} - {"name"}
            keys, reason = complaint(error, schema, valid, content)
    place = where if isinstance(where, str) else where(keys)
    raise TaskError(": ".join(filter(None, (place, ".".join(map(str, keys)), reason))))


def adapter(config: TaskConfig) -> Adapter:
    """A new instance of the adapter that `config` names."""
    module, _, name = ADAPTERS[config.adapter][0].partition(":")
    instance: Adapter = getattr(importlib.import_module(module), name)(config)
    return instance
