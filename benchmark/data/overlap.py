"""Which rows are the same to a task, come of one source, or are pieces of one another; and how many of the
scored examples share that with the rows that train. What hold-out keeps apart, and what records count."""

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
    """Each row's input as a text, equal where rows differ in nothing that the task reads but the answer.

    Its blanks part the words. Rows that the task has made into something else (the blocks of a language
    model) count with all their columns.
    """
    names = [name for name in task.input_columns if name in rows.column_names] or rows.column_names
    return ["\n".join(map(plain, values)) for values in zip(*(rows[n] for n in names), strict=True)]


def sources(rows: "Dataset", task: TaskConfig, where: str) -> list[str]:
    """Each row's source: the text of the column `group_by`, or its input. Raises UserError where there is no
    such column."""
    column = task.dataset.group_by
    if column is None:
        return inputs(rows, task)
    if column not in rows.column_names:
        hint = nearest(column, rows.column_names)
        raise UserError(f"{where}: {task.name}: dataset.group_by: no column {column}{hint}")
    return [plain(value) for value in rows[column]]


def groups(keys: Iterable[str]) -> list[list[int]]:
    """The places of equal keys, in the order in which each key comes first."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        places[key].append(place)
    return list(places.values())


def shared(scored: "Dataset", trained: "Dataset", task: TaskConfig, where: str) -> Overlap:
    """The shares of scored examples whose input, and whose source, stands among the rows that train."""

    def share(of_scored: Sequence[str], of_trained: Sequence[str]) -> float:
        known = {*of_trained}
        return sum(key in known for key in of_scored) / len(of_scored)

    exact = share(inputs(scored, task), inputs(trained, task))
    if task.dataset.group_by is None:
        return Overlap(exact=exact, group=exact)
    of_source = share(sources(scored, task, where), sources(trained, task, where))
    return Overlap(exact=exact, group=of_source)


def nested(texts: Sequence[str], held_out: Iterable[int]) -> set[int]:
    """The places of texts that lie within one of the held-out texts as a run of its words, or contain one;
    the held-out ones are among them."""
    words = [text.split() for text in texts]
    held = {" ".join(words[place]) for place in held_out}
    pieces = {piece for text in held for piece in _runs(text.split())}
    found = {place for place, text in enumerate(words) if " ".join(text) in pieces}
    # a text that contains a held-out one has its rarest word, so few have to be looked through
    counts = Counter(word for text in words for word in text)
    by_rarest = defaultdict(list)
    for text in held:
        if text:
            by_rarest[min(text.split(), key=lambda word: counts[word])].append(f" {text} ")
    for place, of_text in enumerate(words):
        whole, rarest = f" {' '.join(of_text)} ", {*of_text} & by_rarest.keys()
        if any(piece in whole for word in rarest for piece in by_rarest[word]):
            found.add(place)
    return found


def _runs(words: Sequence[str]) -> Iterator[str]:
    """Every run of one or more words."""
    for start in range(len(words)):
        for stop in range(start + 1, len(words) + 1):
            yield " ".join(words[start:stop])
