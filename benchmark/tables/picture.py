"""The picture of memory per model and strategy: closed form, as the ledger tables have it."""

from pathlib import Path

from benchmark.report.plots import styles
from benchmark.sizes import GIB
from benchmark.tables import closed_form, definition
from benchmark.tables.definition import LedgerTable


def memory(path: Path) -> None:
    """Weights, gradients, AdamW's state and masters on the device, in GB (2^30), on a logarithmic axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = definition.load("trainable-parameters")
    assert isinstance(table, LedgerTable)
    found = closed_form.strategies(table.models)
    names = list(next(iter(found.values())))
    colours = styles(names)
    figure = Figure(figsize=(8.4, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for name, held in ((name, [of[name] for of in found.values()]) for name in names):
        marker = "s" if name.startswith("FPFT") else "o"
        axes.plot(
            list(found),
            [each.pgs / GIB for each in held],
            marker=marker,
            linewidth=1,
            color=colours[name],
            label=name,
        )
    axes.axhline(24, color="#555555", linewidth=1, linestyle="--")
    axes.annotate("24 GB", (0, 24), xytext=(0, 3), textcoords="offset points", fontsize=8)
    axes.set_yscale("log")
    axes.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    axes.set_ylabel("weights, gradients, AdamW state, masters: GB")
    axes.set_title("Memory on the device before activations, HiFT at m = 1", fontsize=11)
    axes.grid(True, axis="y", linewidth=0.4, color="#cccccc")
    axes.set_axisbelow(True)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
