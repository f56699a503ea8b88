"""The picture of memory per model and method, from the closed forms of the ledger tables."""

from pathlib import Path

from benchmark.report.drawing import styles
from benchmark.sizes import GIB
from benchmark.tables import closed_form, definition
from benchmark.tables.definition import LedgerTable


def memory(path: Path) -> None:
    """Draw weights, gradients, AdamW's state and masters on the device to the PNG `path`.

    The axis is logarithmic, in GB (2^30 bytes).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = definition.load("trainable-parameters")
    assert isinstance(table, LedgerTable)
    steps = closed_form.strategies(table.models)
    names = list(next(iter(steps.values())))
    colours = styles(names)
    figure = Figure(figsize=(8.4, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for name in names:
        marker = "s" if name.startswith("FPFT") else "o"
        axes.plot(
            list(steps),
            [of_model[name].pgs / GIB for of_model in steps.values()],
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
