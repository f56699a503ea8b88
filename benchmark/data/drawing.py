"""The draw by seed: which rows of train a run trains on and which are held out of it.

Rows of one source (`dataset.group_by`, or equal inputs) are never on both sides. Labels are looked at for
`shots` alone.
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
"""Strata of the evaluation split's lengths; `like_eval` strays from their distribution by one at most."""


@dataclass(frozen=True)
class Drawn:
    """Places among the rows of train, disjoint. `set_aside`: how many rows do neither because they share
    their source with a held-out row, lie within one or contain one."""

    train: list[int]
    held_out: list[int]
    set_aside: int = 0


def permutation(n: int, seed: int) -> list[int]:
    """0 to n - 1, shuffled by `seed`."""
    import numpy as np

    return np.random.default_rng(seed).permutation(n).tolist()


@dataclass(frozen=True)
class _Strata:
    """Groups by the length of their first row: each group's stratum, how many examples each stratum is to
    give, and its lengths in words, for messages. A group that is as long as no stratum has None."""

    of_groups: list[int | None]
    wanted: list[int]
    spans: list[str]


def draw(
    settings: DataSettings, rows: "Dataset", evaluation: "Dataset", task: TaskConfig, where: str
) -> Drawn:
    """What trains and what is held out of the rows of train: as many rows as make `dev_examples` examples
    when they are scored, and `train_examples` of the rows that are left.

    With `shots` both hold equally many rows of each class. `evaluation`: the evaluation split's examples, for
    `held_out: like_eval`. Raises UserError where there are too few rows.
    """
    order = permutation(len(rows), settings.seed)
    if task.dataset.shots is not None:
        return _few(settings, order, rows, task, where)
    held_out: list[int] = []
    touched: set[int] = set()
    said = ""
    if settings.dev_examples:
        texts = overlap.inputs(rows, task)
        by = task.dataset.group_by
        groups = overlap.groups(overlap.sources(rows, task, where) if by else texts)
        firsts = [texts[group[0]] for group in groups]
        strata = _strata(settings.dev_examples, firsts, evaluation, task)
        held_out, touched = _held_out(settings, groups, strata, task, where)
        if task.dataset.nested:
            touched |= overlap.nested(texts, held_out)
        said = f", {len(groups)} groups by {by}" if by else ""
    rest = [place for place in order if place not in touched]
    set_aside = len(touched) - len(held_out)
    wanted = len(rest) if settings.train_examples is None else settings.train_examples
    if wanted > len(rest) or not rest:
        if set_aside:
            said += f"; {set_aside} are set aside, as they share text with held-out ones"
        raise UserError(
            f"{where}: {task.name}: train_examples {wanted} and dev_examples {settings.dev_examples} are "
            f"more than the {len(rows)} examples of {task.dataset.splits['train']}{said}"
        )
    return Drawn(rest[:wanted], held_out, set_aside)


def _held_out(
    settings: DataSettings, groups: list[list[int]], strata: _Strata, task: TaskConfig, where: str
) -> tuple[list[int], set[int]]:
    """The rows held out, and all rows of their groups: of the last group that a stratum takes some rows may
    be more than it wants."""
    left, held_out, touched = [*strata.wanted], list[int](), set[int]()
    for number in permutation(len(groups), settings.seed):
        group, stratum = groups[number], strata.of_groups[number]
        if stratum is None or not left[stratum]:
            continue
        taken = group if task.merges else group[: left[stratum]]
        left[stratum] -= 1 if task.merges else len(taken)
        held_out += taken
        touched.update(group)
    for missing, wanted, span in zip(left, strata.wanted, strata.spans, strict=True):
        if missing:
            raise UserError(
                f"{where}: {task.name}: dev_examples {settings.dev_examples} need {wanted} examples{span}; "
                f"{task.dataset.splits['train']} has {wanted - missing}"
            )
    return held_out, touched


def _strata(wanted: int, texts: list[str], evaluation: "Dataset", task: TaskConfig) -> _Strata:
    """One stratum, or one per quantile of the evaluation split's lengths."""
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
    found = np.searchsorted(upper, lengths)
    inside = (lengths >= lower[0]) & (lengths <= upper[-1])
    return _Strata(
        [stratum if fits else None for stratum, fits in zip(found.tolist(), inside, strict=True)],
        shares.tolist(),
        [f" of {low} to {high} words" for low, high in zip(lower, upper, strict=True)],
    )


def _few(
    settings: DataSettings, order: list[int], rows: "Dataset", task: TaskConfig, where: str
) -> Drawn:
    """The first rows of each class train, the next are held out, less those whose input trains."""
    dataset = task.dataset
    shots, split = dataset.shots, dataset.splits["train"]
    assert shots is not None
    if shots.per not in rows.column_names:
        hint = nearest(shots.per, rows.column_names)
        raise UserError(f"{where}: {task.name}: {split} has no column {shots.per}{hint}")
    labels = list(rows[shots.per])
    by_class: dict[Any, list[int]] = {label: [] for label in labels}
    for index in order:
        by_class[labels[index]].append(index)
    if len(by_class) < math.ceil(dataset.sizes["train"] / shots.count):
        classes = ", ".join(map(str, by_class))
        raise UserError(
            f"{where}: {task.name}: column {shots.per}: {split} has no class but {classes}, "
            f"too few for {dataset.sizes['train']} rows of {shots.count} each"
        )
    held_out, left_over = divmod(settings.dev_examples, len(by_class))
    if settings.train_examples is not None or left_over:
        raise UserError(
            f"{task.name}: takes {shots.count} rows of each of {len(by_class)} classes: give no "
            f"train_examples, and dev_examples as a multiple of {len(by_class)}"
        )
    train = {i for found in by_class.values() for i in found[: shots.count]}
    texts = overlap.inputs(rows, task) if held_out else []
    known = {texts[i] for i in train} if held_out else set()
    development: set[int] = set()
    for label, found in by_class.items():
        others = [i for i in found[shots.count :] if held_out and texts[i] not in known][:held_out]
        there = min(len(found), shots.count) + len(others)
        if there < shots.count + held_out and label not in shots.all_of:
            raise UserError(
                f"{where}: {task.name}: column {shots.per}: class {label} has {there} rows of "
                f"{split}, fewer than the {shots.count + held_out} wanted"
            )
        development.update(others)
    return Drawn([i for i in order if i in train], [i for i in order if i in development])
