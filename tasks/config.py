"""The schemas of task YAMLs, one per adapter. Unknown keys are errors. Imports no torch.

Input texts are templates (`tasks/templates.py`) over the columns of the dataset.
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
"""Two or more different texts, one per class."""


class Card(Strict):
    """The task's paper, its reference implementation, and how this implementation was checked."""

    paper: str
    reference: str
    checked: str


class TaskConfig(Strict):
    """The keys of every task YAML.

    `metrics`: names of modules in `tasks/metrics`. `main`: the score shown in tables, as the name of a
    module, or `module.key` if the module returns several scores.
    """

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
        """The key of the main score in the result of `Adapter.score`."""
        return self.main.rpartition(".")[2]

    @property
    def main_version(self) -> str:
        """Name and version of the metric of the main score, such as `accuracy@1`."""
        module = self.main.partition(".")[0]
        return f"{module}@{metrics.version(module)}"

    @property
    def inputs_read(self) -> tuple[str, ...]:
        """The templates or column names that a row's input is made of, without those of its answer."""
        raise NotImplementedError

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns that a row's input is made of. Rows equal in all of them count as the same example."""
        read = (text if "{" in text else f"{{{text}}}" for text in self.inputs_read)
        names = {name for template in read for name in templates.columns(template)}
        return tuple(sorted(names - {"candidate", "mask"}))  # the adapters fill in these two

    @property
    def merges(self) -> bool:
        """Whether the rows of one group (`dataset.group_by`) are scored as one example."""
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
            raise ValueError(f"main: {self.main} belongs to none of the metrics: {self.metrics}")
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
    """One or two input texts (column names or templates) and a column of label indices.

    `labels`: the names of the labels, in the order of their indices. `question_id`: template of the id of a
    row's question; rows with the same id are answers to the same question (MultiRC's metric).
    """

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
    """One candidate per column (a name or a template); column `label` holds the index of the right one."""

    columns: Names
    label: str


class Listed(Strict):
    """Column `list` holds a row's candidates, column `right` the right ones among them. Both hold lists."""

    list: str
    right: str


def candidate_columns(candidates: Words | Columns | Listed) -> tuple[str, ...]:
    """The columns or templates of a row's own candidates; empty for `Words`."""
    if isinstance(candidates, Columns):
        return candidates.columns
    return (candidates.list,) if isinstance(candidates, Listed) else ()


class CandidatesConfig(TaskConfig):
    """Choice by a causal LM: the likelihood of `answer` after `prompt`, once for each `{candidate}` in it.

    `cut`: the column that is shortened if a row does not fit. `loss`: `candidates` is the cross-entropy over
    the candidates' scores, `answer` the negative log-likelihood of the right answer.
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
    """A prompt with `{mask}` in place of the label's word; `words` are in the order of the label indices.

    The prompt is tokenised in pieces: each column and each text between columns separately. At most `limit`
    tokens of the column `cut` are used, or fewer if the mask would not fit otherwise. Tokens beyond the run's
    `max_length` are then cut off at the end. A word of several tokens is an error, unless `several_tokens`
    gives it one mask per token.
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
    """How text is generated: greedy or beam search of at most `max_new_tokens` tokens."""

    max_new_tokens: Positive
    beams: Positive = 1
    length_penalty: float = 1.0
    no_repeat_ngram: Annotated[int, Field(ge=0)] = 0


class GenerationConfig(TaskConfig):
    """Training: `answer` after `prompt`. Evaluation: a text generated after `prompt`.

    `stop`: the text that ends an answer; None means the end token. Generated text is cut there.
    `cut`: the column that is shortened if a row does not fit.
    `references`: the column of right texts (a text or a list of texts).
    `merge_references`: the rows of one group (`dataset.group_by`) are scored as one example with the
    references of all.
    `separator`: splits a generated text into the spans that DROP's metric compares.
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
            raise ValueError("merge_references: requires dataset.group_by")
        return self


class ResponseConfig(TaskConfig):
    """The likelihood of `answer` and the end token after `prompt`.

    `cut`: the column that is shortened if a row does not fit.
    """

    prompt: str
    answer: str
    cut: str | None = None

    @property
    def inputs_read(self) -> tuple[str, ...]:
        return (self.prompt,)


class LanguageModelConfig(TaskConfig):
    """The likelihood of the texts of column `text`, joined and cut into blocks of the run's `max_length`."""

    text: str

    @property
    def inputs_read(self) -> tuple[str, ...]:
        return (self.text,)


class SpansConfig(TaskConfig):
    """The answer to `question` (a column or template) is a span of column `context`.

    `answers`: a column with the lists `text` and `answer_start` (in characters). A long context is read in
    windows that overlap by `stride` tokens, or by a third of the run's `max_length` if that is less.
    `max_answer_tokens`: the longest span that is predicted.
    """

    question: str
    context: str
    answers: str
    stride: Positive
    max_answer_tokens: Positive

    @property
    def inputs_read(self) -> tuple[str, ...]:
        return (self.question, self.context)


class TaggingConfig(TaskConfig):
    """One tag per word. `words`, `tags`: columns of lists of words and of tag indices.

    `names`: the tags in the order of their indices; one of them is `O`, for a word outside all entities.
    """

    words: str
    tags: str
    names: Names

    @property
    def inputs_read(self) -> tuple[str, ...]:
        return (self.words,)

    @model_validator(mode="after")
    def _none(self) -> "TaggingConfig":
        if "O" not in self.names:
            raise ValueError("names: O is missing, the tag of a word outside all entities")
        return self


class ChoiceConfig(TaskConfig):
    """Two input texts for each candidate. The second has `{candidate}`, or a filter that inserts it.

    If the two do not fit, the first is truncated.
    """

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
