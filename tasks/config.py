"""What a task YAML may hold: strict types, one per adapter: no field is there that its adapter does not use.

Texts are templates (`tasks/templates.py`) over the columns of the dataset. No torch here.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from tasks import metrics, templates
from tasks.dataset import DatasetConfig, Positive, Strict


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len({*names}) < len(names):
        raise ValueError(f"{', '.join(names)} are not all different")
    return names


Names = Annotated[tuple[str, ...], Field(min_length=2), AfterValidator(_distinct)]
"""What tells classes apart: two or more different texts."""


class Card(Strict):
    """Where the task comes from and what its implementation was checked against."""

    paper: str
    reference: str
    checked: str


class TaskConfig(Strict):
    """What every task YAML holds. `metrics` are names of modules in `tasks/metrics`; `main` is the score in
    tables: the name of a module, or `module.key` where a module gives several scores."""

    name: str
    version: Positive
    adapter: str
    dataset: DatasetConfig
    metrics: tuple[str, ...]
    main: str
    higher_is_better: bool = True
    card: Card

    @property
    def main_key(self) -> str:
        """The main score's key in what `Adapter.score` returns."""
        return self.main.rpartition(".")[2]

    @property
    def main_version(self) -> str:
        """The id and version of the metric behind the main score, such as `accuracy@1`."""
        module = self.main.partition(".")[0]
        return f"{module}@{metrics.version(module)}"

    @property
    def inputs_read(self) -> tuple[str, ...]:
        """The templates, or names of columns, that a row's input is made of; its answer is not in them."""
        raise NotImplementedError

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns that a row's input is made of: rows equal in all of them are the same example."""
        read = (text if "{" in text else f"{{{text}}}" for text in self.inputs_read)
        found = {name for template in read for name in templates.columns(template)}
        return tuple(sorted(found - {"candidate", "mask"}))  # which the adapters put in

    @property
    def merges(self) -> bool:
        """Whether the rows of one group are one example when they are scored."""
        return False

    @field_validator("metrics")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            metrics.version(name)
        return names

    @model_validator(mode="after")
    def _consistent(self) -> "TaskConfig":
        if self.main.partition(".")[0] not in self.metrics:
            raise ValueError(f"main: {self.main} is of none of the metrics: {self.metrics}")
        cut, prompt = (getattr(self, name, None) for name in ("cut", "prompt"))
        if cut is not None and (prompt is None or cut not in templates.columns(prompt)):
            raise ValueError(f"cut: {cut} is no column of the prompt")
        group_by = self.dataset.group_by
        if group_by is not None and group_by not in self.input_columns:
            raise ValueError(
                f"dataset.group_by: {group_by} is none of the columns of the input: "
                f"{', '.join(self.input_columns)}"
            )
        return self

    @field_validator(
        "inputs", "prompt", "answer", "question", "question_id", mode="after", check_fields=False
    )
    @classmethod
    def _readable(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for template in [value] if isinstance(value, str) else value or ():
            templates.columns(template)
        return value


class ClassificationConfig(TaskConfig):
    """One or two input texts (column names, or templates), a column of label indices and their names.
    `question_id` tells which rows belong to one question, for MultiRC's metric."""

    inputs: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    label: str
    labels: Names
    question_id: str | None = None

    @property
    def inputs_read(self) -> tuple[str, ...]:
        return self.inputs


class RegressionConfig(TaskConfig):
    """One or two input texts and a column of numbers within `range`, both ends included."""

    inputs: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    label: str
    range: tuple[float, float]

    @property
    def inputs_read(self) -> tuple[str, ...]:
        return self.inputs


class Words(Strict):
    """The same candidates for every row; column `label` holds the index of the right one."""

    words: Names
    label: str


class Columns(Strict):
    """A candidate per column (a name or a template); column `label` holds the index of the right one."""

    columns: Names
    label: str


class Listed(Strict):
    """The candidates stand in the list column `list`, the right ones of them in the list column `right`."""

    list: str
    right: str


def candidate_columns(candidates: Words | Columns | Listed) -> tuple[str, ...]:
    """Where a row's own candidates stand: columns or templates."""
    if isinstance(candidates, Columns):
        return candidates.columns
    return (candidates.list,) if isinstance(candidates, Listed) else ()


class CandidatesConfig(TaskConfig):
    """`answer` follows `prompt`; in it `{candidate}` is the candidate whose likelihood is measured.

    `cut` is the column that is shortened where a row does not fit. `loss`: cross-entropy over the candidates'
    scores, or the likelihood of the right answer alone.
    """

    prompt: str
    answer: str
    cut: str
    candidates: Words | Columns | Listed
    loss: Literal["candidates", "answer"]

    @property
    def inputs_read(self) -> tuple[str, ...]:
        return (self.prompt, self.answer, *candidate_columns(self.candidates))


class MaskedConfig(TaskConfig):
    """A prompt with `{mask}` where the label's word belongs; `words` in the order of the label indices.

    The prompt is tokenised piece by piece, the template's own texts and the columns each by itself. Of the
    column `cut` at most `limit` tokens are read, and fewer where the mask would not fit otherwise. What is
    then beyond the run's `max_length` is cut off the end. A word that the tokenizer splits is refused, unless
    `several_tokens` gives it a mask per token.
    """

    prompt: str
    cut: str
    limit: Positive | None = None
    words: Names
    several_tokens: bool = False
    label: str

    @property
    def inputs_read(self) -> tuple[str, ...]:
        return (self.prompt,)


class Decoding(Strict):
    """How text is generated: greedily or with beams, at most `max_new_tokens` tokens."""

    max_new_tokens: Positive
    beams: Positive = 1
    length_penalty: float = 1.0
    no_repeat_ngram: Annotated[int, Field(ge=0)] = 0


class GenerationConfig(TaskConfig):
    """`answer` is learnt after `prompt`, then the end token, or `stop` where there is one: what is generated
    is cut there.

    `references` is the column of right texts (one, or a list). With `merge_references` the rows of one group
    (`dataset.group_by`) are one example when scored, with the references of all. `separator` cuts a text into
    the spans that DROP's metric wants.
    """

    prompt: str
    answer: str
    cut: str | None = None
    references: str
    merge_references: bool = False
    separator: str | None = None
    stop: str | None = None
    decoding: Decoding

    @property
    def inputs_read(self) -> tuple[str, ...]:
        return (self.prompt,)

    @property
    def merges(self) -> bool:
        return self.merge_references

    @model_validator(mode="after")
    def _grouped(self) -> "GenerationConfig":
        if self.merge_references and self.dataset.group_by is None:
            raise ValueError("merge_references: needs dataset.group_by")
        return self


class ResponseConfig(TaskConfig):
    """The likelihood of `answer` and the end token after `prompt`. `cut` is the column that is shortened
    where a row does not fit."""

    prompt: str
    answer: str
    cut: str | None = None

    @property
    def inputs_read(self) -> tuple[str, ...]:
        return (self.prompt,)


class LanguageModelConfig(TaskConfig):
    """The likelihood of all texts of column `text`, read as one in blocks of the run's `max_length`."""

    text: str

    @property
    def inputs_read(self) -> tuple[str, ...]:
        return (self.text,)


class SpansConfig(TaskConfig):
    """The answer to `question` (a column or template) is a piece of column `context`; `answers` holds `text`
    and `answer_start` lists. Long contexts are read in windows that overlap by `stride` tokens, but at most
    by a third of the run's `max_length`."""

    question: str
    context: str
    answers: str
    stride: Positive
    max_answer_tokens: Positive

    @property
    def inputs_read(self) -> tuple[str, ...]:
        return (self.question, self.context)


class TaggingConfig(TaskConfig):
    """A tag per word: columns with lists of words and of tag indices, and the tags' names, `O` for none."""

    words: str
    tags: str
    names: Names

    @property
    def inputs_read(self) -> tuple[str, ...]:
        return (self.words,)

    @model_validator(mode="after")
    def _none(self) -> "TaggingConfig":
        if "O" not in self.names:
            raise ValueError("names need O, the tag of a word outside all entities")
        return self


class ChoiceConfig(TaskConfig):
    """Two input texts for each candidate, the second with `{candidate}`, or a filter that puts it somewhere.
    What does not fit is cut from the first."""

    inputs: Annotated[tuple[str, ...], Field(min_length=2, max_length=2)]
    candidates: Columns | Listed

    @property
    def inputs_read(self) -> tuple[str, ...]:
        return (*self.inputs, *candidate_columns(self.candidates))

    @model_validator(mode="after")
    def _told_apart(self) -> "ChoiceConfig":
        if "candidate" not in templates.columns(self.inputs[1]):
            raise ValueError("inputs: the second needs {candidate}")
        return self
