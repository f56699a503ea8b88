"""A picture: a Matplotlib figure, names for its parts, and the SVG text made from both.

The SVG can stand inside a page. Ink has the colour of the page's text, so it is legible on light and dark
ground. A named part shows its name where a reader points at it. Text stays text. Equal input gives equal
bytes: Matplotlib's object API is used (no pyplot), ids come from a fixed salt, and no date is written.

Colours are those of Okabe and Ito, which colour-blind readers can distinguish.
"""

import io
import re
import textwrap
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from benchmark.console import printable

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6D00", "#8C8C8C")
INK = "#000000"
"""The colour of text and lines, which the SVG gives over to the page."""
FAINT: dict[str, Any] = {"linewidth": 0.5, "color": INK, "alpha": 0.18}
"""The look of grids and other lines behind the data."""
LINE = 58
"""Most characters of a line of a title."""
_SVG = "{http://www.w3.org/2000/svg}"
_FILE = "color:#1d232b;background:#ffffff;font-family:sans-serif"
"""The look of a file of its own, which no page gives its colours."""


def styles(names: Sequence[str], choices: Sequence[str] = COLOURS) -> dict[str, str]:
    """One of `choices` for each distinct name, by order of appearance, so that all pictures agree."""
    return dict(zip(dict.fromkeys(names), cycle(choices), strict=False))


class Drawing:
    """A figure of `width` × `height` inches. A phone shows a width of up to 4 without making text smaller."""

    def __init__(self, title: str, width: float = 4.0, height: float = 3.0) -> None:
        from matplotlib.figure import Figure

        self.title = title
        self.figure = Figure(figsize=(width, height), layout="constrained")
        self.figure.patch.set_visible(False)
        lines = textwrap.wrap(printable(title), LINE) or [""]
        self.figure.suptitle(plain("\n".join(lines)), fontsize=9)
        self._names: dict[str, str] = {}

    def grid(self, rows: int = 1, columns: int = 1, **options: Any) -> "list[list[Axes]]":
        """The figure's axes, `rows` × `columns`; `options` are those of `Figure.subplots`."""
        grid = self.figure.subplots(rows, columns, squeeze=False, **options)
        for axes in grid.flat:
            axes.patch.set_visible(False)
            axes.grid(True, **FAINT)
            axes.set_axisbelow(True)
            axes.tick_params(labelsize=8)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
        return [list(row) for row in grid]

    def name(self, name: str, *artists: "Artist") -> None:
        """Show `name` where a reader points at any of `artists`."""
        for artist in artists:
            gid = f"part{len(self._names)}"
            artist.set_gid(gid)
            self._names[gid] = printable(name)

    def legend(self, axes: "Axes", columns: int) -> None:
        """The legend of `axes`, below all plots."""
        handles, labels = axes.get_legend_handles_labels()
        if len(handles) > 1:
            options = {"frameon": False, "fontsize": 8, "handlelength": 1.6, "columnspacing": 1.2}
            self.figure.legend(
                handles, labels, loc="outside lower center", ncols=columns, **options
            )

    def svg(self, salt: str) -> str:
        """The SVG text. Ids depend on `salt`, which must differ between the pictures of a page."""
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        file = io.StringIO()
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            FigureCanvasSVG(self.figure).print_svg(file, metadata=nothing)
        return _for_a_page(file.getvalue(), self._names, self.title)


def as_file(svg: str) -> str:
    """The SVG text of a file of its own, on white ground."""
    return svg.replace("<svg ", f'<svg style="{_FILE}" ', 1) + "\n"


def plain(text: str) -> str:
    """`text` as Matplotlib shows it literally: it reads text between two dollar signs as a formula."""
    return printable(text).replace("$", r"\$")


def _for_a_page(svg: str, names: dict[str, str], title: str) -> str:
    ElementTree.register_namespace("", _SVG.strip("{}"))
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(svg)
    used = set(re.findall(r"#(\w+)", " ".join(re.findall(r'(?:href="|url\()[^")]*', svg))))
    for element in root.iter():
        for child in list(element):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                element.remove(child)
        _tidy(element)
        if (gid := element.get("id")) in names:
            del element.attrib["id"]
            element.set("class", "part")
            label = ElementTree.Element(f"{_SVG}title")
            label.text = names[gid]
            element.insert(0, label)
        elif gid is not None and gid not in used:
            del element.attrib["id"]
    root.set("role", "img")
    root.set("aria-label", printable(title))
    root.set("stroke-linejoin", "round")
    return ElementTree.tostring(root, encoding="unicode")


def _tidy(element: ElementTree.Element) -> None:
    """Give ink the colour of the page's text, and leave out blanks, fonts and digits finer than a dot."""
    element.tail = None
    if element.tag == f"{_SVG}text":
        element.set("fill", "currentColor")
    elif not (element.text or "").strip():
        element.text = None
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    for key, value in element.attrib.items():
        if key in ("d", "x", "y", "width", "height", "transform", "viewBox"):
            element.set(key, re.sub(r"-?\d+\.\d+", _two_decimals, value).replace("  ", " ").strip())
        elif key == "style":
            value = re.sub(r"font-family: [^;]*;? ?", "", value)
            element.set(key, value.replace(INK, "currentColor").replace(": ", ":"))


def _two_decimals(number: re.Match[str]) -> str:
    return f"{float(number.group()):.2f}".rstrip("0").rstrip(".")
