"""The report's section on tasks with several scores or with texts as predictions, which one number hides."""

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
"""Examples whose texts stand side by side, spread evenly over the split."""
LONGEST = 400
"""Characters of a text that are shown."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One task and model. `scores` is None where the task has one score, `texts` where nothing is a text."""

    title: str
    scores: Table | None
    texts: Table | None
    seeds: str


def sections(rows: Sequence[Row], records: Iterable[RunRecord], folder: Path) -> list[Section]:
    """A section for each task and model that has something to show; `folder` holds the predictions that the
    records name. A file that cannot be read is left out: comparing the runs says why."""
    by_place: dict[tuple[str, str], dict[str, list[RunRecord]]] = {}
    for record in records:
        if record.status == "success" and record.scores:
            of = by_place.setdefault((record.spec["task"], record.spec["model"]), {})
            of.setdefault(record.spec["label"], []).append(record)
    made = []
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
            made.append(section)
    return made


def _scores(
    of_labels: dict[str, list[RunRecord]], rows: Sequence[Row], task: str, model: str
) -> Table | None:
    """Every score of the task: mean ± standard deviation over seeds (number of seeds), where all have one."""
    wanted = {row.label: row.seeds for row in rows if (row.task, row.model) == (task, model)}
    found = {
        label: [run.scores.all for run in runs if run.scores] for label, runs in of_labels.items()
    }
    names = list(dict.fromkeys(name for runs in found.values() for run in runs for name in run))
    if len(names) < 2:
        return None
    body = [
        (label, *(_mean([run.get(name) for run in runs], wanted[label]) for name in names))
        for label, runs in found.items()
    ]
    return Table(columns=("strategy", *names), rows=tuple(body))


def _mean(values: Sequence[float | None], wanted: int) -> str:
    known = [value for value in values if value is not None]
    if len(known) < wanted:
        return "–"
    digits = 4 if abs(statistics.fmean(known)) < 2 else 2
    spread = f" ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.{digits}f}{spread} ({len(known)})"


def _texts(firsts: dict[str, RunRecord], folder: Path) -> Table | None:
    """SHOWN examples: the first reference, and what each strategy said in its first seed."""
    found: dict[str, Predictions] = {}
    for label, run in firsts.items():
        try:
            kept = predictions.read(folder / str(run.predictions))
        except UserError:
            continue
        if kept.predictions and all(isinstance(said, str) for said in kept.predictions):
            found[label] = kept
    if not found:
        return None
    said = {
        label: dict(zip(kept.ids, kept.predictions, strict=True)) for label, kept in found.items()
    }
    first = next(iter(found.values()))
    count = min(SHOWN, len(first.ids))
    body = []
    for place in (len(first.ids) * number // count for number in range(count)):
        of_example = (of.get(first.ids[place], "–") for of in said.values())
        body.append((_short(_plain(first.references[place])), *map(_short, of_example)))
    return Table(columns=("reference", *found), rows=tuple(body), names=1 + len(found))


def _plain(reference: Any) -> str:
    """The first of several references."""
    while isinstance(reference, list) and reference:
        reference = reference[0]
    return str(reference)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
