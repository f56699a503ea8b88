"""Draws rows by seed: the training rows of a run and its held-out rows.

A row and its group (rows with the same `dataset.group_by` text, or else the same input) are never split
between the two. Labels are used for `shots` only.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmark.data import overlap
from benchmark.data.settings import DataSettings
from benchmark.errors import UserError, nearest
from tasks.base import TaskConfig

if TYPE_CHECKING:
    from datasets import Dataset

QUANTILES = 20
"""Number of strata for `held_out: like_eval`, quantiles of the evaluation split's lengths in words. In each
stratum the number of held-out examples differs from the exact share by less than one."""


@dataclass(frozen=True)
class Drawn:
    """Indices of the training rows and of the held-out rows among the rows of train. They are disjoint.

    `set_aside`: number of rows in neither list because they belong to the group of a held-out row, are part
    of its text, or contain its text.
    """

    train: list[int]
    held_out: list[int]
    set_aside: int = 0


def check_shots(settings: DataSettings, task: TaskConfig) -> None:
    """Raises UserError for `train_examples` of a task that takes its own number of rows of each class."""
    shots = task.dataset.shots
    if shots is not None and settings.train_examples is not None:
        raise UserError(
            f"{task.name}: takes {shots.count} rows of each class: give no train_examples"
        )


def check_enough(settings: DataSettings, task: TaskConfig, rows: int, where: str) -> None:
    """Raises UserError if more examples of train are wanted than its number of `rows`."""
    wanted = settings.train_examples or 0
    if wanted + settings.dev_examples > rows:
        raise UserError(
            f"{where}: {task.name}: train_examples {wanted} and dev_examples {settings.dev_examples} are "
            f"more than the {rows} examples of {task.dataset.splits['train']}"
        )


def permutation(n: int, seed: int) -> list[int]:
    """The integers 0 to n - 1 in an order drawn with `seed`."""
    import numpy as np

    return np.random.default_rng(seed).permutation(n).tolist()


@dataclass(frozen=True)
class _Strata:
    """The strata (length classes) from which held-out groups are drawn.

    `of_groups`: index of each group's stratum, by the length of its first row; None if its length is in no
    stratum. `wanted`: number of examples to draw from each stratum. `spans`: each stratum's range of lengths,
    as text for messages.
    """

    of_groups: list[int | None]
    wanted: list[int]
    spans: list[str]


def draw(
    settings: DataSettings, rows: "Dataset", evaluation: "Dataset", task: TaskConfig, where: str
) -> Drawn:
    """Draw the held-out rows, enough for `dev_examples` examples, and then `train_examples` of the rest.

    With `shots`, both lists have the same number of rows of each class. `rows`: the rows of train.
    `evaluation`: the examples of the evaluation split, whose lengths `held_out: like_eval` follows. `where`:
    the source, for messages. Raises UserError if there are too few rows.
    """
    check_shots(settings, task)
    dataset = task.dataset
    if not dataset.shots and not dataset.group_by:  # what is said of groups counts them, too
        check_enough(settings, task, len(rows), where)
    order = permutation(len(rows), settings.seed)
    if dataset.shots is not None:
        return _draw_shots(settings, order, rows, task, where)
    held_out: list[int] = []
    excluded: set[int] = set()  # from training
    note = ""
    if settings.dev_examples:
        texts = overlap.inputs(rows, task)
        by = task.dataset.group_by
        groups = overlap.groups(overlap.sources(rows, task, where) if by else texts)
        firsts = [texts[group[0]] for group in groups]
        strata = _strata(settings.dev_examples, firsts, evaluation, task)
        held_out, excluded = _held_out(settings, groups, strata, task, where)
        if task.dataset.nested:
            excluded |= overlap.nested(texts, held_out)
        note = f", {len(groups)} groups by {by}" if by else ""
    rest = [index for index in order if index not in excluded]
    set_aside = len(excluded) - len(held_out)
    wanted = len(rest) if settings.train_examples is None else settings.train_examples
    if wanted > len(rest) or not rest:
        if set_aside:
            note += f"; {set_aside} are set aside, as they share text with held-out ones"
        raise UserError(
            f"{where}: {task.name}: train_examples {wanted} and dev_examples {settings.dev_examples} are "
            f"more than the {len(rows)} examples of {task.dataset.splits['train']}{note}"
        )
    return Drawn(rest[:wanted], held_out, set_aside)


def _held_out(
    settings: DataSettings, groups: list[list[int]], strata: _Strata, task: TaskConfig, where: str
) -> tuple[list[int], set[int]]:
    """The held-out rows, and all rows of their groups.

    The last group of a stratum may have more rows than are still wanted; then only some of it is held out.
    Raises UserError if a stratum has too few examples.
    """
    missing, held_out, excluded = [*strata.wanted], list[int](), set[int]()
    for number in permutation(len(groups), settings.seed):
        group, stratum = groups[number], strata.of_groups[number]
        if stratum is None or not missing[stratum]:
            continue
        taken = group if task.merges else group[: missing[stratum]]
        missing[stratum] -= 1 if task.merges else len(taken)
        held_out += taken
        excluded.update(group)
    for lacking, wanted, span in zip(missing, strata.wanted, strata.spans, strict=True):
        if lacking:
            raise UserError(
                f"{where}: {task.name}: dev_examples {settings.dev_examples} need {wanted} examples{span}; "
                f"{task.dataset.splits['train']} has {wanted - lacking}"
            )
    return held_out, excluded


def _strata(wanted: int, texts: list[str], evaluation: "Dataset", task: TaskConfig) -> _Strata:
    """One stratum of all lengths, or with `held_out: like_eval` one per quantile of the evaluation split's.

    `wanted`: number of examples to hold out. `texts`: the input of each group's first row.
    """
    import numpy as np

    if task.dataset.held_out == "random":
        return _Strata([0] * len(texts), [wanted], [""])
    words = [len(text.split()) for text in overlap.inputs(evaluation, task)]
    steps = np.linspace(0, 1, QUANTILES + 1)[1:]
    upper = np.unique(np.quantile(words, steps, method="inverted_cdf"))
    lower = np.array([min(words), *(upper[:-1] + 1)])
    counts = np.bincount(np.searchsorted(upper, words), minlength=len(upper))
    exact = counts * wanted / len(words)
    shares = np.floor(exact).astype(int)
    shares[np.argsort(shares - exact, kind="stable")[: wanted - shares.sum()]] += 1
    lengths = np.array([len(text.split()) for text in texts])
    stratum_of = np.searchsorted(upper, lengths)
    inside = (lengths >= lower[0]) & (lengths <= upper[-1])
    return _Strata(
        [
            stratum if fits else None
            for stratum, fits in zip(stratum_of.tolist(), inside, strict=True)
        ],
        shares.tolist(),
        [f" of {low} to {high} words" for low, high in zip(lower, upper, strict=True)],
    )


def _draw_shots(
    settings: DataSettings, order: list[int], rows: "Dataset", task: TaskConfig, where: str
) -> Drawn:
    """The draw for a task with `shots`, class by class in the order given.

    The first `shots.count` rows of each class are the training rows. The next rows are held out, except those
    with the same input as a training row. Raises UserError if a class has too few rows.
    """
    dataset = task.dataset
    shots, split = dataset.shots, dataset.splits["train"]
    assert shots is not None
    if shots.per not in rows.column_names:
        hint = nearest(shots.per, rows.column_names)
        raise UserError(f"{where}: {task.name}: {split} has no column {shots.per}{hint}")
    labels = rows[shots.per][:]  # [:], as a column itself reads one row at a time
    by_class: dict[Any, list[int]] = {label: [] for label in labels}
    for index in order:
        by_class[labels[index]].append(index)
    if len(by_class) < math.ceil(dataset.sizes["train"] / shots.count):
        classes = ", ".join(map(str, by_class))
        raise UserError(
            f"{where}: {task.name}: column {shots.per}: {split} has no class but {classes}, "
            f"too few for {dataset.sizes['train']} rows of {shots.count} each"
        )
    per_class, remainder = divmod(settings.dev_examples, len(by_class))
    if remainder:
        raise UserError(
            f"{task.name}: takes as many rows of each of {len(by_class)} classes: give dev_examples as a "
            f"multiple of {len(by_class)}"
        )
    train = {i for indices in by_class.values() for i in indices[: shots.count]}
    texts = overlap.inputs(rows, task) if per_class else []
    train_texts = {texts[i] for i in train} if per_class else set()
    held_out: set[int] = set()
    for label, indices in by_class.items():
        rest = indices[shots.count :] if per_class else []
        others = [i for i in rest if texts[i] not in train_texts][:per_class]
        available = min(len(indices), shots.count) + len(others)
        if available < shots.count + per_class and label not in shots.all_of:
            raise UserError(
                f"{where}: {task.name}: column {shots.per}: class {label} has {available} rows of "
                f"{split}, fewer than the {shots.count + per_class} wanted"
            )
        held_out.update(others)
    return Drawn([i for i in order if i in train], [i for i in order if i in held_out])
