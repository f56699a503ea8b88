"""What a task YAML may hold: strict types, one per adapter: no field is there that its adapter does not use.

Texts are templates (`tasks/templates.py`) over the columns of the dataset. No torch here.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from tasks import metrics, templates

Positive = Annotated[int, Field(ge=1)]


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len({*names}) < len(names):
        raise ValueError(f"{', '.join(names)} are not all different")
    return names


Names = Annotated[tuple[str, ...], Field(min_length=2), AfterValidator(_distinct)]
"""What tells classes apart: two or more different texts."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Shots(_Strict):
    """`count` rows of each class of column `per` are the whole training data, drawn by the run's seed.

    `all_of` names the classes that may have fewer rows: what they have trains, and what is left of it is
    held out.
    """

    per: str
    count: Positive
    all_of: tuple[int, ...] = ()


class Origin(_Strict):
    """One dataset, in the Hub's terms. `revision` is pinned; script datasets use `refs/convert/parquet`."""

    id: str
    config: str
    revision: str


class DatasetConfig(Origin):
    """Where the data is. `evaluated_on` is the dataset of the split `eval` where it is not that of `train`.

    `splits` are names, or slices of them by row (`train[1000:]`). `sizes` are the official row counts of the
    splits used, for planning; with `shots` that of `train` is their number. `without` names rows that are no
    examples: a value of a column each, as SNLI's label -1 where the annotators disagreed.
    """

    splits: dict[str, str]
    sizes: dict[str, int]
    without: dict[str, int | str] = {}
    shots: Shots | None = None
    evaluated_on: Origin | None = None

    @property
    def origins(self) -> dict[str, Origin]:
        """The dataset that each role, `train` and `eval`, is read from."""
        return {"train": self, "eval": self.evaluated_on or self}

    @property
    def title(self) -> str:
        """Id and config, of both datasets where there are two."""
        return " + ".join(dict.fromkeys(f"{o.id}/{o.config}" for o in self.origins.values()))

    @property
    def pinned(self) -> str:
        """The revision, or both in the order of the title."""
        found = {f"{o.id}/{o.config}": o.revision for o in self.origins.values()}
        return " + ".join(found.values())

    @model_validator(mode="after")
    def _complete(self) -> "DatasetConfig":
        for role in ("train", "eval"):
            if role not in self.splits or role not in self.sizes:
                raise ValueError(f"splits and sizes need an entry for {role}")
        return self


class Card(_Strict):
    """Where the task comes from and what its implementation was checked against."""

    paper: str
    reference: str
    checked: str


class TaskConfig(_Strict):
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
        if cut is not None and cut not in templates.columns(prompt):
            raise ValueError(f"cut: {cut} is no column of the prompt")
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


class RegressionConfig(TaskConfig):
    """One or two input texts and a column of numbers within `range`, both ends included."""

    inputs: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    label: str
    range: tuple[float, float]


class Words(_Strict):
    """The same candidates for every row; column `label` holds the index of the right one."""

    words: Names
    label: str


class Columns(_Strict):
    """A candidate per column (a name or a template); column `label` holds the index of the right one."""

    columns: Names
    label: str


class Listed(_Strict):
    """The candidates stand in the list column `list`, the right ones of them in the list column `right`."""

    list: str
    right: str


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


class Decoding(_Strict):
    """How text is generated: greedily or with beams, at most `max_new_tokens` tokens."""

    max_new_tokens: Positive
    beams: Positive = 1
    length_penalty: float = 1.0
    no_repeat_ngram: Annotated[int, Field(ge=0)] = 0


class GenerationConfig(TaskConfig):
    """`answer` is learnt after `prompt`, then the end token, or `stop` where there is one: what is generated
    is cut there.

    `references` is the column of right texts (one, or a list). Evaluation rows with the same `group_by` are
    one example, with the references of all. `separator` cuts a text into the spans that DROP's metric wants.
    """

    prompt: str
    answer: str
    cut: str | None = None
    references: str
    group_by: str | None = None
    separator: str | None = None
    stop: str | None = None
    decoding: Decoding


class ResponseConfig(TaskConfig):
    """The likelihood of `answer` and the end token after `prompt`. `cut` is the column that is shortened
    where a row does not fit."""

    prompt: str
    answer: str
    cut: str | None = None


class LanguageModelConfig(TaskConfig):
    """The likelihood of all texts of column `text`, read as one in blocks of the run's `max_length`."""

    text: str


class SpansConfig(TaskConfig):
    """The answer to `question` (a column or template) is a piece of column `context`; `answers` holds `text`
    and `answer_start` lists. Long contexts are read in windows that overlap by `stride` tokens, but at most
    by a third of the run's `max_length`."""

    question: str
    context: str
    answers: str
    stride: Positive
    max_answer_tokens: Positive


class TaggingConfig(TaskConfig):
    """A tag per word: columns with lists of words and of tag indices, and the tags' names, `O` for none."""

    words: str
    tags: str
    names: Names

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

    @model_validator(mode="after")
    def _told_apart(self) -> "ChoiceConfig":
        if "candidate" not in templates.columns(self.inputs[1]):
            raise ValueError("inputs: the second needs {candidate}")
        return self
