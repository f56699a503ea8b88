"""The report's pictures of costs: memory by part, and which group trains at which step."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.analysis.summary import MEMORY_NAMES, Row
from benchmark.report.drawing import INK, Drawing, plain
from benchmark.sizes import MIB

PARTS = {
    "parameters": ("parameters_bytes", "#0072B2"),
    "masters": ("master_bytes", "#CC79A7"),
    "optimizer state": ("state_bytes", "#E69F00"),
    "gradients": ("gradients_bytes", "#009E73"),
}
"""Name of each part of the device's memory -> its field of Row and its colour."""
REST = "activations and the rest"
STEPS = 48
"""Number of steps that the schedule shows."""
SCHEDULES = 6
"""Most different schedules that are drawn."""


def memory(rows: Sequence[Row], *, title: str) -> Drawing:
    """A bar for each row, of its parts one after another, and below it a thin one of what the host keeps.

    The line marks the peak. Parts are each at their own largest, so together they can exceed it.
    """
    drawing = Drawing(title, height=1.4 + 0.24 * len(rows))
    ((axes,),) = drawing.grid()
    shown = {
        name: field
        for name, (field, _) in PARTS.items()
        if any(getattr(row, field) for row in rows)
    }
    for place, row in enumerate(rows):
        parts = {name: getattr(row, field) or 0 for name, field in shown.items()}
        peak = row.peak_bytes or 0
        parts[REST] = max(peak - sum(parts.values()), 0)
        left = 0.0
        for name, size in parts.items():
            colour = PARTS[name][1] if name in PARTS else "#8C8C8C"
            label: dict[str, Any] = {"label": name} if place == 0 else {}
            bar = axes.barh(-place, size / MIB, 0.5, left=left, color=colour, **label)
            drawing.name(f"{row.label}: {name} {size / MIB:,.1f} MiB", *bar)
            left += size / MIB
        (mark,) = axes.plot([peak / MIB] * 2, [-place - 0.34, -place + 0.34], color=INK)
        drawing.name(f"{row.label}: peak {peak / MIB:,.1f} MiB", mark)
        kept = (row.host_state_bytes or 0) / MIB
        if any(row.host_state_bytes for row in rows):
            label = {"label": "kept on the host"} if place == 0 else {}
            bar = axes.barh(-place - 0.36, kept, 0.14, color="#56B4E9", **label)
            drawing.name(f"{row.label}: {kept:,.1f} MiB kept on the host", *bar)
    axes.set_yticks([-place for place in range(len(rows))], [plain(row.label) for row in rows])
    axes.set_ylim(-len(rows) + 0.35, 0.65)
    kinds = sorted({MEMORY_NAMES.get(row.memory_kind or "", "memory") for row in rows})
    axes.set_xlabel(f"{' or '.join(kinds)}, MiB", fontsize=8)
    axes.grid(False, axis="y")
    drawing.legend(axes, 2)
    return drawing


def schedules(groups: Mapping[str, Sequence[int]], *, title: str) -> Drawing:
    """The group that trains at each of the first steps, a panel for each schedule. `groups`: its name -> the
    groups."""
    from matplotlib.ticker import MaxNLocator

    drawing = Drawing(title, height=0.7 + 0.95 * len(groups))
    grid = drawing.grid(len(groups), sharex=True)
    for (axes,), (name, order) in zip(grid, groups.items(), strict=True):
        steps = range(1, len(order) + 1)
        (line,) = axes.plot(steps, [group + 1 for group in order], "s", markersize=2.6)
        drawing.name(f"{name}: {max(order) + 1} groups", line)
        axes.set_ylabel("group", fontsize=8)
        axes.set_ylim(0.2, max(order) + 1.8)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(plain(name), fontsize=8, loc="left")
    grid[-1][0].set_xlabel("optimizer step", fontsize=9)
    return drawing
