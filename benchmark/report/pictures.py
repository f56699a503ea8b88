"""Which pictures a report has: one for each thing that has data and is worth a look.

Every picture is drawn once. The page holds its SVG text; the Markdown shows the same picture from a file.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.analysis.summary import Row
from benchmark.analysis.verdicts import Verdict
from benchmark.files import file_stem
from benchmark.records.record import RunRecord, read_curve
from benchmark.report import cost_plots, plots
from benchmark.report.drawing import Drawing, as_file, styles
from benchmark.report.tables import baseline_of, model_name, task_name

FOLDER = "plots"
Place = tuple[str, str]
"""A task and a model, whose strategies are compared."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """`file` is its path relative to the report, `svg` its text, `text` what it shows."""

    file: str
    svg: str
    text: str


class Gallery:
    """The pictures of one report, by section. Every picture gets a file of its own in `report`."""

    def __init__(self, report: Path, rows: Sequence[Row]) -> None:
        self.colours = styles([row.label for row in rows])
        self._report = report
        self.rows = rows
        self._files: set[str] = set()
        (report / FOLDER).mkdir()

    def title(self, place: Place) -> str:
        return f"{task_name(self.rows, place[0])}, {model_name(self.rows, place[1])}"

    def add(self, drawing: Drawing, kind: str, *of: str) -> Picture:
        """The picture of `drawing`, after its file is written, which is named by kind and what it is of."""
        name = f"{FOLDER}/{file_stem(kind, *of)}.svg"
        if name in self._files:
            name = f"{FOLDER}/{file_stem(kind, *of, str(len(self._files)))}.svg"
        self._files.add(name)
        svg = drawing.svg(salt=name)
        (self._report / name).write_text(as_file(svg), encoding="utf-8")
        return Picture(file=name, svg=svg, text=drawing.title)


def scores(
    gallery: Gallery, rows: Sequence[Row], verdicts: Iterable[Verdict], places: Sequence[Place]
) -> list[Picture]:
    """For each task the score against memory; for each place the differences and the memory by part."""
    shown = []
    of_place = {(of.task, of.model): of for of in verdicts}
    for task in dict.fromkeys(task for task, _ in places):
        mine = [row for row in rows if row.task == task]
        if sum(row.mean is not None and row.peak_bytes is not None for row in mine) > 1:
            title = f"{task_name(rows, task)}: score against memory"
            drawing = plots.pareto(mine, title=title, colours=gallery.colours)
            shown.append(gallery.add(drawing, "pareto", task))
    for place in places:
        mine = [row for row in rows if (row.task, row.model) == place]
        baseline = baseline_of(mine).label
        if place in of_place:
            of = of_place[place]
            pairs = {row.label: of.minus(row.label, baseline) for row in mine}
            known = {label: pair for label, pair in pairs.items() if pair is not None}
            if known:
                title = f"{gallery.title(place)}: difference to {baseline}"
                drawing = plots.forest(
                    known,
                    baseline=baseline,
                    metric=of.metric,
                    title=title,
                    colours=gallery.colours,
                )
                shown.append(gallery.add(drawing, "difference", *place))
        measured = [row for row in mine if row.peak_bytes is not None]
        if len(measured) > 1:
            title = f"{gallery.title(place)}: memory by part"
            shown.append(gallery.add(cost_plots.memory(measured, title=title), "memory", *place))
    return shown


def training(
    gallery: Gallery, curves: Mapping[Place, Mapping[str, Sequence[plots.Curve]]]
) -> list[Picture]:
    """The training loss of each place, and once the schedules of the strategies with groups."""
    shown = []
    for place, of_labels in curves.items():
        title = f"{gallery.title(place)}: training loss"
        drawing = plots.loss_curves(of_labels, title=title, colours=gallery.colours)
        shown.append(gallery.add(drawing, "loss", *place))
    for place, of_labels in curves.items():
        orders: dict[tuple[int, ...], list[str]] = {}
        for label, (first, *_) in of_labels.items():
            order = tuple(int(group) for group in first.get("group", ())[: cost_plots.STEPS])
            if len(set(order)) > 1:
                orders.setdefault(order, []).append(label)
        if orders:
            some = list(orders.items())[: cost_plots.SCHEDULES]
            named = {", ".join(labels): order for order, labels in some}
            title = f"{model_name(gallery.rows, place[1])}: the group that trains"
            shown.append(
                gallery.add(cost_plots.schedules(named, title=title), "schedule", place[1])
            )
            break
    return shown


def curves_of(
    records: Iterable[RunRecord], folder: Path, places: Sequence[Place]
) -> tuple[dict[Place, dict[str, list[plots.Curve]]], list[str]]:
    """The curves of the successful runs of `places` by label, and a notice for each unreadable one."""
    curves: dict[Place, dict[str, list[plots.Curve]]] = {}
    notices = []
    for record in records:
        place = (record.spec["task"], record.spec["model"])
        if record.status != "success" or record.curve is None or place not in places:
            continue
        try:
            curve = read_curve(folder / record.curve)
            missing = {"step", "loss"} - curve.keys()
        except (OSError, ValueError, TypeError, csv.Error) as error:
            notices.append(f"{record.curve}: not drawn, unreadable: {error.__class__.__name__}")
            continue
        if missing:
            notices.append(f"{record.curve}: not drawn, no column {', '.join(sorted(missing))}")
            continue
        curves.setdefault(place, {}).setdefault(record.spec["label"], []).append(curve)
    return curves, notices
