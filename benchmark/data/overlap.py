"""Equal inputs, equal sources and contained texts among rows.

`drawing` uses them to separate held-out from training rows. `shared` counts how many scored examples also
occur in the training set, for the record.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from benchmark.errors import UserError, nearest
from benchmark.records.record import Overlap
from tasks.base import TaskConfig
from tasks.dataset import plain

if TYPE_CHECKING:
    from datasets import Dataset


def inputs(rows: "Dataset", task: TaskConfig) -> list[str]:
    """The input of each row as one text, with words separated by blanks. The answer is not part of it.

    Two rows have the same text if they are equal in all columns that the input is made of. Rows without these
    columns (the blocks of a language model task) are compared in all their columns.
    """
    names = [name for name in task.input_columns if name in rows.column_names] or rows.column_names
    columns = (rows[name][:] for name in names)  # [:], as a column itself reads one row at a time
    return ["\n".join(map(plain, values)) for values in zip(*columns, strict=True)]


def sources(rows: "Dataset", task: TaskConfig, where: str) -> list[str]:
    """The source of each row: the text of the column `dataset.group_by`, else the row's input.

    Raises UserError if the column does not exist.
    """
    column = task.dataset.group_by
    if column is None:
        return inputs(rows, task)
    if column not in rows.column_names:
        hint = nearest(column, rows.column_names)
        raise UserError(f"{where}: {task.name}: dataset.group_by: no column {column}{hint}")
    return [plain(value) for value in rows[column][:]]


def groups(keys: Iterable[str]) -> list[list[int]]:
    """The indices of equal keys, one list per key, in the order of each key's first occurrence."""
    indices: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        indices[key].append(index)
    return list(indices.values())


def shared(scored: "Dataset", trained: "Dataset", task: TaskConfig, where: str) -> Overlap:
    """The shares of the scored examples whose input, and whose source, also occurs in the training rows."""

    def share(scored_keys: Sequence[str], trained_keys: Sequence[str]) -> float:
        known = {*trained_keys}
        return sum(key in known for key in scored_keys) / len(scored_keys)

    exact = share(inputs(scored, task), inputs(trained, task))
    if task.dataset.group_by is None:
        return Overlap(exact=exact, group=exact)
    group = share(sources(scored, task, where), sources(trained, task, where))
    return Overlap(exact=exact, group=group)


def nested(texts: Sequence[str], held_out: Iterable[int]) -> set[int]:
    """The indices of texts that contain a held-out text, or are contained in one, as consecutive words.

    `held_out`: indices of the held-out texts. The result includes them.
    """
    words = [text.split() for text in texts]
    held_texts = {" ".join(words[index]) for index in held_out}
    pieces = {piece for text in held_texts for piece in _runs(text.split())}
    related = {index for index, text_words in enumerate(words) if " ".join(text_words) in pieces}
    # A text that contains a held-out text also contains that text's rarest word. So each text is compared
    # only with the held-out texts whose rarest word it has.
    counts = Counter(word for text_words in words for word in text_words)
    by_rarest = defaultdict(list)
    for text in held_texts:
        if text:
            by_rarest[min(text.split(), key=lambda word: counts[word])].append(f" {text} ")
    for index, text_words in enumerate(words):
        text, rarest = f" {' '.join(text_words)} ", {*text_words} & by_rarest.keys()
        if any(held in text for word in rarest for held in by_rarest[word]):
            related.add(index)
    return related


def _runs(words: Sequence[str]) -> Iterator[str]:
    """Every sequence of one or more consecutive words, as a text."""
    for start in range(len(words)):
        for stop in range(start + 1, len(words) + 1):
            yield " ".join(words[start:stop])
