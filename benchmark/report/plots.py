"""The report's pictures of scores: against memory, as differences, along training, and by learning rate.

Each function draws one picture from numbers that are already computed.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from benchmark.analysis.comparison import Difference
from benchmark.analysis.learning import Axis, Measure, Runs, mean_curve
from benchmark.analysis.summary import MEMORY_NAMES, Row, pareto_front
from benchmark.report.drawing import COLOURS, FAINT, INK, Drawing, plain, styles
from benchmark.sizes import MIB

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Mapping[str, Sequence[float]]
"""A run's values by name, one a step (`records.record.read_curve`)."""

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", ":", "-.")
_POINTS = 100
"""Most points of a line: more of them would not be told apart."""
AXES: dict[Axis, str] = {
    "step": "optimizer steps",
    "seconds": "seconds of training",
    "flops": "TFLOP of training",
    "updates": "updates per parameter",
}
_MEASURES: dict[Measure, str] = {"score": "score", "dev_loss": "held-out loss"}


def pareto(rows: Sequence[Row], *, title: str, colours: Mapping[str, str]) -> Drawing:
    """Mean score (bar: one standard deviation over seeds) against peak memory, with the Pareto front."""
    points = {
        row: (row.peak_bytes / MIB, row.mean)
        for row in rows
        if row.peak_bytes is not None and row.mean is not None
    }
    drawing = Drawing(title, height=3.4)
    ((axes,),) = drawing.grid()
    markers = styles([row.model for row in rows], _MARKERS)
    labels = []
    for row, point in points.items():
        name = f"{row.label} ({row.model})" if len(markers) > 1 else row.label
        look: dict[str, Any] = {
            "fmt": markers[row.model],
            "markersize": 6,
            "capsize": 2,
            "elinewidth": 0.8,
        }
        bar = axes.errorbar(*point, yerr=row.std, color=colours[row.label], **look)
        spread = "" if row.std is None else f" ± {row.std:.4g}"
        told = f"{name}: {point[1]:.4g}{spread} at {point[0]:,.1f} MiB, {row.n} seeds"
        drawing.name(told, *bar.get_children())
        labels.append((name, point))
    front = pareto_front(rows)
    if len(front) > 1:
        across, up = zip(*(points[row] for row in front), strict=True)
        axes.plot(
            across, up, drawstyle="steps-post", linestyle="--", zorder=0, linewidth=1, color=INK
        )[0].set_alpha(0.4)
    memory = {MEMORY_NAMES.get(row.memory_kind or "", "peak memory") for row in points}
    axes.set_xlabel(f"{' or '.join(sorted(memory))}, MiB", fontsize=8)
    axes.set_ylabel(plain(next(iter(points)).metric or "score"), fontsize=9)
    axes.set_xlim(left=0, right=1.25 * max(across for across, _ in points.values()))
    axes.margins(y=0.12)
    _label(drawing, axes, labels)
    return drawing


def _label(
    drawing: Drawing, axes: "Axes", labels: Sequence[tuple[str, tuple[float, float]]]
) -> None:
    """Write each label beside its point: at the nearest of several places that nothing stands in yet."""
    drawing.figure.draw_without_rendering()
    scale = 72 / drawing.figure.dpi
    centres = [axes.transData.transform(point) * scale for _, point in labels]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in centres]
    for (name, point), (x, y) in sorted(
        zip(labels, centres, strict=True), key=lambda pair: -pair[1][1]
    ):
        width, height = 4.4 * len(name), 8
        places = (
            (dx if side > 0 else -width - dx, dy)
            for dy in (0, 9, -9, 18, -18, 27, -27, 36, -36, 45, -45)
            for side, dx in ((1, 6), (-1, 6), (1, 14), (-1, 14))
        )
        boxes = [
            (x + dx, y + dy - 4, x + dx + width, y + dy - 4 + height, dx, dy) for dx, dy in places
        ]
        free = [box for box in boxes if not any(_overlap(box, other) for other in taken)]
        *box, dx, dy = (free or boxes)[0]
        taken.append((box[0], box[1], box[2], box[3]))
        far = abs(dy) > 9
        axes.annotate(
            plain(name),
            point,
            xytext=(dx, dy),
            textcoords="offset points",
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", **FAINT} if far else None,
        ).set_in_layout(False)


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def forest(
    differences: Mapping[str, Difference],
    *,
    baseline: str,
    metric: str,
    title: str,
    colours: Mapping[str, str],
) -> Drawing:
    """The difference of each strategy and `baseline` with its 95 % interval. Filled: significant."""
    drawing = Drawing(title, height=1.1 + 0.19 * len(differences))
    ((axes,),) = drawing.grid()
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.locator_params(axis="x", nbins=5)
    for place, (label, of) in enumerate(differences.items()):
        bar = axes.errorbar(
            of.mean,
            -place,
            xerr=[[of.mean - of.low], [of.high - of.mean]],
            fmt="o",
            markersize=5,
            capsize=2,
            color=colours[label],
            markerfacecolor=colours[label] if of.separable else "none",
        )
        told = (
            "separable" if of.separable else "not separable" if of.p is not None else "not tested"
        )
        interval = f"{of.mean:+.4g} ({of.low:+.4g} to {of.high:+.4g})"
        drawing.name(f"{label}: {interval}, {told} from {baseline}", *bar.get_children())
    axes.set_yticks([-place for place in range(len(differences))], [plain(n) for n in differences])
    axes.set_ylim(-len(differences) + 0.4, 0.6)
    axes.set_xlabel(plain(f"{metric} minus that of {baseline}, 95 % interval"), fontsize=9)
    return drawing


def loss_curves(
    curves: Mapping[str, Sequence[Curve]], *, title: str, colours: Mapping[str, str]
) -> Drawing:
    """Training loss by optimizer step for each label: mean over seeds, then a running mean over 4 % of the
    steps."""
    drawing = Drawing(title, height=2.8 + 0.16 * -(-len(curves) // 3))
    ((axes,),) = drawing.grid()
    for label, seeds in curves.items():
        length = min(len(curve["loss"]) for curve in seeds)
        mean = [_average([curve["loss"][i] for curve in seeds]) for i in range(length)]
        window = max(1, length // 25)
        shown = sorted({*range(0, length, max(1, length // _POINTS)), length - 1})
        smooth = [_average(mean[max(0, i + 1 - window) : i + 1]) for i in shown]
        steps = [seeds[0]["step"][i] for i in shown]
        look = _line(colours, label)
        (line,) = axes.plot(steps, smooth, label=plain(label), **look)
        drawing.name(f"{label}: training loss {smooth[-1]:.4g} at the end", line)
    axes.set_xlabel("optimizer steps", fontsize=9)
    axes.set_ylabel("training loss (running mean)", fontsize=9)
    drawing.legend(axes, 3)
    return drawing


def learning_curves(runs: Runs, axis: Axis, *, title: str, colours: Mapping[str, str]) -> Drawing:
    """Score (above) and held-out loss (below) against a cost: mean over seeds with a band of one standard
    deviation."""
    curves = {
        measure: {label: mean_curve(mine, axis, measure) for label, mine in runs.items()}
        for measure in _MEASURES
    }
    shown = [measure for measure in _MEASURES if any(curves[measure].values())]
    drawing = Drawing(title, height=0.8 + 1.8 * len(shown) + 0.16 * -(-len(runs) // 3))
    grid = drawing.grid(len(shown), sharex=True)
    unit = 1e12 if axis == "flops" else 1
    for (axes,), measure in zip(grid, shown, strict=True):
        for label, curve in curves[measure].items():
            if not curve:
                continue
            across = [amount / unit for amount, _ in curve]
            means = [mean.mean for _, mean in curve]
            spread = [mean.std or 0.0 for _, mean in curve]
            low = [mean - std for mean, std in zip(means, spread, strict=True)]
            high = [mean + std for mean, std in zip(means, spread, strict=True)]
            look = _line(colours, label)
            marks: dict[str, Any] = {"marker": "o", "markersize": 2.5}
            (line,) = axes.plot(across, means, label=plain(label), **marks, **look)
            axes.fill_between(across, low, high, color=colours[label], alpha=0.12, linewidth=0)
            last = f"{means[-1]:.4g} after {across[-1]:,.4g} {AXES[axis]}"
            drawing.name(f"{label}: {_MEASURES[measure]} {last}", line)
        if axis == "updates":
            axes.set_xscale("log")
        axes.set_ylabel(_MEASURES[measure], fontsize=9)
    grid[-1][0].set_xlabel(AXES[axis], fontsize=9)
    drawing.legend(grid[0][0], 3)
    return drawing


def rates(
    searched: Mapping[str, Mapping[float, tuple[float, float | None]]],
    chosen: Mapping[str, float | None],
    *,
    by: str,
    title: str,
    colours: Mapping[str, str],
) -> Drawing:
    """The mean of each rate tried (bar: one standard error), by strategy; the chosen rate is large."""
    drawing = Drawing(title, height=2.8 + 0.16 * -(-len(searched) // 3))
    ((axes,),) = drawing.grid()
    axes.set_xscale("log")
    for label, tried in searched.items():
        means = [mean for mean, _ in tried.values()]
        errors = [error or 0.0 for _, error in tried.values()]
        look = _line(colours, label)
        bar = axes.errorbar(list(tried), means, yerr=errors, capsize=2, label=plain(label), **look)
        drawing.name(label, bar[0])
        for rate, (mean, _) in tried.items():
            is_chosen = rate == chosen[label]
            size = 7 if is_chosen else 3
            (dot,) = axes.plot(rate, mean, "o", markersize=size, color=colours[label])
            drawing.name(f"{label}: {mean:.4g} at {rate:g}{', chosen' * is_chosen}", dot)
    axes.set_xlabel("learning rate", fontsize=9)
    axes.set_ylabel(f"{by} on held-out rows", fontsize=9)
    drawing.legend(axes, 3)
    return drawing


def _line(colours: Mapping[str, str], label: str) -> dict[str, Any]:
    """The look of a label's line: in another style where the colours begin again."""
    styles_of = [line for line in _LINES for _ in COLOURS]
    style = dict(zip(colours, cycle(styles_of), strict=False))[label]
    return {"color": colours[label], "linestyle": style, "linewidth": 1.3}


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values)
