"""The report's pictures: score against peak memory, loss curves, trainable ratio per step, learning curves.

They are drawn with Matplotlib's object API (no pyplot, no global state) and written as PNG without a date, so
equal input gives equal bytes. Colours are those of Okabe and Ito, which colour-blind readers can distinguish.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.analysis.learning import Axis, Measure, Runs, mean_curve
from benchmark.analysis.summary import MEMORY_NAMES, Row, pareto_front
from benchmark.sizes import MIB

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = Mapping[str, Sequence[float]]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", ":", "-.")
_RATIO_STEPS = 60
_AXIS_NAMES: dict[Axis, str] = {
    "step": "optimizer steps",
    "updates": "updates per\nparameter",
    "flops": "TFLOP",
}
_MEASURE_NAMES: dict[Measure, str] = {"score": "score", "dev_loss": "held-out loss"}


def styles(names: Sequence[str], choices: Sequence[str] = _COLOURS) -> dict[str, str]:
    """One of `choices` for each distinct name, by order of appearance, so that all pictures agree."""
    return dict(zip(dict.fromkeys(names), cycle(choices), strict=False))


def pareto(path: Path, rows: Sequence[Row], *, title: str, colours: Mapping[str, str]) -> None:
    """Mean score (bar: one standard deviation over seeds) against peak memory, with the Pareto front."""
    points = {
        row: (row.peak_bytes / MIB, row.mean)
        for row in rows
        if row.peak_bytes is not None and row.mean is not None
    }
    figure, axes = _figure(title)
    markers = styles([row.model for row in rows], _MARKERS)
    several = len(markers) > 1
    for row, point in points.items():
        name = f"{row.label} ({row.model})" if several else row.label
        axes.errorbar(
            *point,
            yerr=row.std,
            fmt=markers[row.model],
            markersize=8,
            capsize=3,
            color=colours[row.label],
            label=_plain(name),
        )
    front = pareto_front(rows)
    if len(front) > 1:
        axes.plot(
            *zip(*(points[row] for row in front), strict=True),
            drawstyle="steps-post",
            linestyle="--",
            linewidth=1,
            color="#777777",
            zorder=0,
            label="Pareto front",
        )
    memory = {MEMORY_NAMES.get(row.memory_kind or "", "peak memory") for row in points}
    axes.set_xlabel(f"{' or '.join(sorted(memory))}, MiB")
    axes.set_ylabel(_plain(next(iter(points)).metric or "score"))
    _finish(figure, axes, path)


def loss_curves(
    path: Path,
    curves: Mapping[str, Sequence[Curve]],
    *,
    title: str,
    colours: Mapping[str, str],
) -> None:
    """Training loss by optimizer step for each label: mean over seeds, then a running mean over 4 % of the
    steps."""
    figure, axes = _figure(title)
    for label, seeds in curves.items():
        length = min(len(curve["loss"]) for curve in seeds)
        mean = [_average([curve["loss"][i] for curve in seeds]) for i in range(length)]
        window = max(1, length // 25)
        smooth = [_average(mean[max(0, i + 1 - window) : i + 1]) for i in range(length)]
        steps = seeds[0]["step"][:length]
        axes.plot(steps, smooth, color=colours[label], label=_plain(label), linewidth=1.5)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("training loss (running mean)")
    _finish(figure, axes, path)


def trainable_ratio(
    path: Path, curves: Mapping[str, Curve], *, title: str, colours: Mapping[str, str]
) -> None:
    """Share of all parameters that each of the first steps updates, for one seed of each label."""
    figure, axes = _figure(title)
    for label, curve in curves.items():
        steps, ratios = curve["step"][:_RATIO_STEPS], curve["trainable_ratio"][:_RATIO_STEPS]
        axes.step(steps, ratios, where="mid", color=colours[label], label=_plain(label))
    axes.set_yscale("log")
    axes.set_xlabel(f"optimizer step (the first {_RATIO_STEPS})")
    axes.set_ylabel("trainable share of all parameters")
    _finish(figure, axes, path)


def learning_curves(path: Path, runs: Runs, *, title: str, colours: Mapping[str, str]) -> None:
    """Score (above) and held-out loss (below) against steps, updates and compute: mean over seeds with a band
    of one standard deviation. The picture is narrow enough for a phone."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    curves = {
        (measure, axis): {label: mean_curve(mine, axis, measure) for label, mine in runs.items()}
        for measure in _MEASURE_NAMES
        for axis in _AXIS_NAMES
    }
    shown = [measure for measure in _MEASURE_NAMES if any(curves[measure, "step"].values())]
    size = (4.6, 0.7 + 1.9 * len(shown) + 0.2 * -(-len(runs) // 3))
    figure = Figure(figsize=size, dpi=200, layout="constrained")
    figure.suptitle(_plain(title), fontsize=10)
    grid = figure.subplots(len(shown), len(_AXIS_NAMES), sharex="col", sharey="row", squeeze=False)
    lines = [line for line in _LINES for _ in _COLOURS]
    styled = dict(zip(colours, cycle(lines), strict=False))
    for row, measure in zip(grid, shown, strict=True):
        for axes, axis in zip(row, _AXIS_NAMES, strict=True):
            for label, curve in curves[measure, axis].items():
                unit = 1e12 if axis == "flops" else 1
                across = [amount / unit for amount, _ in curve]
                means = [mean.mean for _, mean in curve]
                spread = [mean.std or 0.0 for _, mean in curve]
                low = [mean - std for mean, std in zip(means, spread, strict=True)]
                high = [mean + std for mean, std in zip(means, spread, strict=True)]
                look = {"color": colours[label], "linestyle": styled[label], "linewidth": 1.2}
                axes.plot(across, means, label=_plain(label), **look)
                axes.fill_between(across, low, high, color=colours[label], alpha=0.15, linewidth=0)
            axes.grid(True, linewidth=0.4, color="#cccccc")
            axes.tick_params(labelsize=8)
            if axis == "updates":
                axes.set_xscale("log")
            else:
                axes.xaxis.set_major_locator(MaxNLocator(2))
        row[0].set_ylabel(_MEASURE_NAMES[measure], fontsize=9)
    for axes, name in zip(grid[-1], _AXIS_NAMES.values(), strict=True):
        axes.set_xlabel(name, fontsize=9)
    _write(figure, grid[0, 0], path, loc="outside lower center", ncols=3, fontsize=8)


def _figure(title: str) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(_plain(title), fontsize=11)
    axes.grid(True, linewidth=0.4, color="#cccccc")
    axes.set_axisbelow(True)
    return figure, axes


def _finish(figure: "Figure", axes: "Axes", path: Path) -> None:
    _write(figure, axes, path, loc="outside right upper", fontsize=8)


def _write(figure: "Figure", axes: "Axes", path: Path, **legend: Any) -> None:
    """Write `figure` as PNG, with the legend of `axes` outside the plots."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, frameon=False, **legend)
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})


def _plain(text: str) -> str:
    """`text` with escaped dollar signs, because Matplotlib reads text between two of them as a formula."""
    return text.replace("$", r"\$")


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values)
