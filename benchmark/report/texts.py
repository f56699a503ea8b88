"""The report's section on all scores of a task, and on generated texts beside their references."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.analysis.summary import Row
from benchmark.errors import UserError
from benchmark.records import predictions
from benchmark.records.predictions import Predictions
from benchmark.records.record import RunRecord
from benchmark.report.tables import Table, model_name, task_name

SHOWN = 20
"""Number of examples whose texts are shown, spread evenly over the split."""
LONGEST = 400
"""Largest number of characters of a text that are shown."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """The section of a task and model. `scores` is None for a task with one score; `texts` is None where
    predictions are not texts; `seeds` names the seed of each strategy whose texts are shown."""

    title: str
    scores: Table | None
    texts: Table | None
    seeds: str


def sections(
    rows: Sequence[Row],
    records: Iterable[RunRecord],
    folder: Path,
    places: Sequence[tuple[str, str]],
) -> list[Section]:
    """A section for each task and model of `places` with several scores or with texts.

    `folder` holds the predictions that the records name. An unreadable file is left out; the section on
    differences names it.
    """
    by_place: dict[tuple[str, str], dict[str, list[RunRecord]]] = {}
    for record in records:
        place = (record.spec["task"], record.spec["model"])
        if record.status == "success" and record.scores and place in places:
            of = by_place.setdefault(place, {})
            of.setdefault(record.spec["label"], []).append(record)
    shown = []
    for (task, model), of_labels in by_place.items():
        firsts = {
            label: min(runs, key=lambda run: run.spec["seed"]) for label, runs in of_labels.items()
        }
        section = Section(
            title=f"{task_name(rows, task)}, {model_name(rows, model)}",
            scores=_scores(of_labels, rows, task, model),
            texts=_texts(firsts, folder),
            seeds=", ".join(f"{label} {run.spec['seed']}" for label, run in firsts.items()),
        )
        if section.scores or section.texts:
            shown.append(section)
    return shown


def _scores(
    of_labels: dict[str, list[RunRecord]], rows: Sequence[Row], task: str, model: str
) -> Table | None:
    """Every score of the task: mean ± standard deviation over seeds (number of seeds), "–" where a seed has
    none."""
    seeds = {row.label: row.seeds for row in rows if (row.task, row.model) == (task, model)}
    scores = {
        label: [run.scores.all for run in runs if run.scores] for label, runs in of_labels.items()
    }
    names = list(dict.fromkeys(name for runs in scores.values() for run in runs for name in run))
    if len(names) < 2:
        return None
    body = [
        (label, *(_mean([run.get(name) for run in runs], seeds[label]) for name in names))
        for label, runs in scores.items()
    ]
    return Table(columns=("strategy", *names), rows=tuple(body))


def _mean(values: Sequence[float | None], seeds: int) -> str:
    known = [value for value in values if value is not None]
    if len(known) < seeds:
        return "–"
    digits = 4 if abs(statistics.fmean(known)) < 2 else 2
    spread = f" ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.{digits}f}{spread} ({len(known)})"


def _texts(firsts: dict[str, RunRecord], folder: Path) -> Table | None:
    """SHOWN examples: the first reference, and the text of each strategy's run in `firsts`."""
    files: dict[str, Predictions] = {}
    for label, run in firsts.items():
        try:
            file = predictions.read(folder / str(run.predictions))
        except UserError:
            continue
        if file.predictions and all(isinstance(text, str) for text in file.predictions):
            files[label] = file
    if not files:
        return None
    texts = {
        label: dict(zip(file.ids, file.predictions, strict=True)) for label, file in files.items()
    }
    first = next(iter(files.values()))
    count = min(SHOWN, len(first.ids))
    body = []
    for place in (len(first.ids) * number // count for number in range(count)):
        of_example = (by_id.get(first.ids[place], "–") for by_id in texts.values())
        body.append((_short(_first(first.references[place])), *map(_short, of_example)))
    return Table(columns=("reference", *files), rows=tuple(body), names=1 + len(files))


def _first(reference: Any) -> str:
    """The reference, or the first of several."""
    while isinstance(reference, list) and reference:
        reference = reference[0]
    return str(reference)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
