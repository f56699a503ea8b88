"""What a task makes of chosen rows of its twin, as text for people to read: what the golden files hold.

`python tests/tasks/rendering.py [TASK ...]` writes them anew (all of them without a name). Then read what
changed: the tests say that a text differs, not whether it is the paper's. A task without a golden file is
rendered when a test asks for it.
"""

import functools
import sys
from collections import Counter
from pathlib import Path
from string import Formatter

import yaml
from datasets import Dataset, DatasetDict

if __name__ == "__main__":
    sys.path[:0] = [str(folder) for folder in Path(__file__).parents[1:3]]

from twin_tables import tables, tokenizer_of

from benchmark.data import splits
from benchmark.twin import data as twins
from tasks import base, templates
from tasks.dataset import plain

GOLDEN = Path(__file__).parent / "golden"
NAMES = [name for name in base.names() if twins.serve(base.load(name).dataset.origins.values())]
"""The tasks whose data has a twin, which these tests read."""
UNCUT = 1024
BLOCK = 24
"""Tokens to a block where a task reads texts in blocks."""
MOST = 8
"""Rows in a golden file."""
MADE_UP = {
    "mezo/boolq": {"question": "is it so?"},
    "mezo/copa": {"premise": "I am sure it rained ", "choice1": "I got wet."},
    "mezo/sst2": {"sentence": "as good as it gets"},
}
"""What the first row is changed to, for the branches of filters that no row of the twin takes."""


@functools.cache
def twin(dataset_id, config):
    """The generated splits of one dataset."""
    made = tables(dataset_id, config)
    return DatasetDict(
        {name: Dataset.from_list(rows, made.features) for name, rows in made.splits.items()}
    )


@functools.cache
def twin_part(name, role):
    """The rows of a role of the task's twin that it can use, as columns."""
    task = base.load(name)
    origin = task.dataset.origins[role]
    rows = splits.part(twin(origin.id, origin.config), task, role, "twin").rows
    return {column: rows[column][:] for column in rows.column_names}


@functools.cache
def adapter(name):
    return base.adapter(base.load(name))


def take(rows, numbers):
    return {column: [values[number] for number in numbers] for column, values in rows.items()}


def strings(value):
    """The texts in a nest of dicts and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def templates_of(task):
    """Every template of the YAML."""
    content = task.model_dump(exclude={"card", "dataset"})
    return [text for text in strings(content) if "{" in text]


def branches(task, row):
    """Which way each filter of the templates goes for a row: its choice, or whether it changes the text."""
    for template in templates_of(task):
        for _, field, spec, _ in Formatter().parse(template):
            if not spec or field.partition(".")[0] not in row:
                continue
            value = templates.look_up(field, row)
            for part in spec.split("|"):
                name, _, argument = part.partition(" ")
                try:
                    after = templates.FILTERS[name](value, argument, row)
                except KeyError:  # `put` of what the adapter adds to the row
                    break
                yield field, name, after if name == "choose" else after != value
                value = after


def chosen(adapter):
    """The first rows of the evaluation split's twin in which each label and each branch of a filter occurs;
    all of the first groups, where rows of a group are one example."""
    rows = twin_part(adapter.config.name, "eval")
    n = len(next(iter(rows.values())))
    if adapter.config.merges:
        keys = [plain(value) for value in rows[adapter.config.dataset.group_by]]
        several = [value for value, size in Counter(keys).items() if size > 1][:2]
        if several:
            return take(rows, [i for i in range(n) if keys[i] in several])
    if not templates_of(adapter.config) and adapter.head == "causal_lm":
        return take(rows, range(MOST))
    encoded = adapter.encode(rows, tokenizer_of(reader(adapter)), UNCUT)
    labels = encoded.get("tags") or [[label] for label in encoded.get("labels", [None] * n)]
    if hasattr(getattr(adapter.config, "candidates", None), "list"):
        labels = [[]] * n  # a place in a list of the row's own
    seen, numbers = set(), []
    for number, found in enumerate(labels):
        row = {column: values[number] for column, values in rows.items()}
        found = {label for label in found if isinstance(label, int)}
        found |= set(branches(adapter.config, row))
        if not found <= seen or len(numbers) < 2:
            numbers.append(number)
            seen |= found
        if len(numbers) == MOST:
            break
    rows, changes = take(rows, numbers), MADE_UP.get(adapter.config.name)
    if changes:
        rows = {name: [*values, changes.get(name, values[0])] for name, values in rows.items()}
    return rows


def reader(adapter):
    """A tiny model whose byte-level tokenizer gives back every blank of what it was given."""
    return "tiny-gpt2" if adapter.head == "causal_lm" else "tiny-roberta"


def rendered(adapter, rows):
    """Each example of the rows as the model reads it, with what is right."""
    tokenizer = tokenizer_of(reader(adapter))
    length = UNCUT if templates_of(adapter.config) or adapter.head != "causal_lm" else BLOCK
    rows = adapter.arrange(rows, False, tokenizer, length) or rows
    columns = adapter.encode(rows, tokenizer, length)
    references = adapter.references(rows)
    return [
        _example(adapter, {name: values[i] for name, values in columns.items()}, reference)
        for i, reference in enumerate(references)
    ]


def _example(adapter, features, reference):
    """What is read, what of it is learnt, and what is right: a name, an answer, or the place of a text."""
    read_back = functools.partial(text, tokenizer_of(reader(adapter)))
    ids, label = features["input_ids"], features.get("labels")
    several = isinstance(ids[0], list)
    inputs = ids if several else [ids]
    if "answer_lengths" in features:
        lengths = features["answer_lengths"] if several else [features["answer_lengths"]]
        pairs = list(zip(inputs, lengths, strict=True))
        prompts = [read_back(one[:-answer]) for one, answer in pairs]
        choices = [read_back(one[-answer:]) for one, answer in pairs]
        shown = {"prompt": prompts[0]} if len(set(prompts)) == 1 else {"prompts": prompts}
        shown |= {"answers": choices} if several else {"answer": choices[0]}
    else:
        choices = [read_back(one) for one in inputs]
        shown = {"texts": choices} if several else {"text": choices[0]}
    if adapter.head == "question_answering":
        places = zip(inputs, label, strict=True)
        return (
            shown
            | {"learnt": [read_back(one[a : b + 1]) for one, (a, b) in places]}
            | {"right": reference}
        )
    if adapter.head == "token_classification":
        firsts = zip(features["first"], reference, strict=True)
        return shown | {"right": [f"{read_back([ids[at]])} -> {tag}" for at, tag in firsts]}
    if isinstance(label, int):
        names = getattr(adapter.config, "labels", None) or getattr(adapter.config, "words", None)
        if "texts" in shown:
            return shown | {"right": label}
        return shown | {"right": (names or choices)[label]}
    return shown | {"right": reference}


def text(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines stand as such; nothing is folded."""

    def ignore_aliases(self, data):
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def path(name):
    return GOLDEN / f"{name}.yaml"


def read(adapter, rows):
    """The columns without which the rows cannot be rendered, or are rendered otherwise."""
    expected = rendered(adapter, rows)
    for column in list(rows):
        rest = {name: values for name, values in rows.items() if name != column}
        try:
            rows = rest if rendered(adapter, rest) == expected else rows
        except (base.TaskError, KeyError):
            continue
    return rows


@functools.cache
def read_golden(name):
    """The golden file's content; of a task without one, what it would be."""
    if not path(name).is_file():
        return golden(name)
    return yaml.safe_load(path(name).read_text(encoding="utf-8"))


def golden(name):
    """The golden file's content, made anew."""
    rows = read(adapter(name), chosen(adapter(name)))
    return {
        "version": base.load(name).version,
        "rows": base.each(rows),
        "examples": rendered(adapter(name), rows),
    }


def main(names):
    for name in names or NAMES:
        path(name).parent.mkdir(parents=True, exist_ok=True)
        content = yaml.dump(
            golden(name), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6
        )
        path(name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
