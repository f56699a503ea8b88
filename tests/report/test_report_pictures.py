"""The pictures of a report: drawn, inside the page, named, and the same for equal records."""

import re
from xml.etree import ElementTree

import pytest
from factories import make_spec
from made_up import both_texts, made_up_records, made_up_specs, report_on, write
from test_report import answered

from benchmark.report import page
from benchmark.report.drawing import Drawing


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with every picture that needs no search, over the remains of an older one; and its twin."""
    specs = made_up_specs()
    outs = []
    for name in ("a", "b"):
        folder = tmp_path_factory.mktemp(name)
        old = folder / "reports" / "made_up" / "plots" / "pareto_old.png"
        old.parent.mkdir(parents=True)
        old.write_bytes(b"old")
        outs.append(write(folder, specs, made_up_records(specs)))
    return outs


def test_equal_records_give_equal_bytes(report):
    files = [{p.relative_to(o): p.read_bytes() for p in o.rglob("*.*")} for o in report]
    assert files[0] == files[1]
    assert {p.suffix for p in files[0]} == {".html", ".md", ".csv", ".svg"}


def test_the_page_needs_no_other_file_and_the_markdown_shows_the_same_pictures(report):
    page, text = both_texts(report[0])
    files = sorted((report[0] / "plots").iterdir())
    kinds = {path.stem.partition("_")[0] for path in files}
    assert kinds == {"pareto", "memory", "loss", "schedule"}, "the old one is gone"
    assert set(re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)) == {f"plots/{p.name}" for p in files}
    inside = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.S)]
    titles = [svg.get("aria-label") for svg in inside]
    assert len(inside) == len(set(titles)) == 4
    assert titles == re.findall(r"!\[([^\]]*)\]", text.replace("\\_", "_"))
    outside = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", page)
    assert all(address.startswith("#") for address in outside)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "pictures of a page share no ids"
    assert {address[1:] for address in outside} <= set(ids)


def test_parts_say_which_run_they_are_and_ink_follows_the_page(report):
    page, _ = both_texts(report[0])
    (pareto,) = (s for s in re.findall(r"<svg.*?</svg>", page, re.S) if "against memory" in s)
    root = ElementTree.fromstring(pareto)
    names = {e.text for e in root.iter("{http://www.w3.org/2000/svg}title")}
    assert names == {
        "full: 0.91 ± 0.01 at 400.0 MiB, 3 seeds",
        "hift: 0.81 ± 0.01 at 150.0 MiB, 3 seeds",
        "lora: 0.805 ± 0.01 at 180.0 MiB, 3 seeds",
    }
    texts = list(root.iter("{http://www.w3.org/2000/svg}text"))
    assert {"full", "hift", "lora"} <= {text.text for text in texts}
    assert {text.get("fill") for text in texts} == {"currentColor"} and "#000000" not in pareto


def test_the_forest_has_the_intervals_of_the_tests(tmp_path, undrawn):
    answered(tmp_path, {"full": 1.5, "lora": 1.5, "head": -1.0})
    drawing = undrawn["glue/sst2, minilm: difference to full"]
    names = sorted(set(drawing._names.values()))
    assert [name.partition(":")[0] for name in names] == ["head", "lora"]
    assert names[0].endswith(", separable from full")
    assert names[1].endswith(", not separable from full")


def test_a_schedule_that_strategies_share_is_drawn_once(tmp_path, undrawn):
    specs = [
        make_spec(label=label, strategy="hift", task=task)
        for task in ("glue/sst2", "glue/mrpc")
        for label in ("one", "two")
    ]
    write(tmp_path, specs, made_up_records(specs))
    (schedule,) = (drawing for title, drawing in undrawn.items() if "group that trains" in title)
    (axes,) = schedule.figure.axes
    assert axes.get_title(loc="left") == "one, two"
    assert list(axes.get_lines()[0].get_ydata()) == [1, 2, 3, 4, 5]


def test_names_in_pictures_are_text(tmp_path):
    evil = "<script>alert($x$)</script>\x1b"
    drawing = Drawing(evil)
    ((axes,),) = drawing.grid()
    (line,) = axes.plot([1, 2], label="_evil")
    axes.set_xlabel(evil.replace("$", r"\$").replace("\x1b", ""))
    drawing.name(evil, line)
    svg = drawing.svg("a")
    assert "<script" not in svg and svg.count("&lt;script&gt;alert($x$)&lt;/script&gt;") == 4


@pytest.mark.slow
def test_ten_thousand_records_are_a_page_of_five_megabytes(tmp_path):
    specs = [
        make_spec(task=f"glue/made_up_{task}", label=f"strategy_{label}", seed=seed)
        for task in range(100) for label in range(20) for seed in range(5)
    ]  # fmt: skip
    records = [r for spec in specs for r in made_up_records([spec])]
    out = report_on(tmp_path, specs, records)
    assert (out / "index.html").stat().st_size < 5 * 2**20
    assert f"{100 - page.DETAILED} more comparisons have no pictures" in both_texts(out)[0]
