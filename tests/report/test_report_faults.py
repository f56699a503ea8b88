"""Reports on odd records: whatever they hold is text, and neither a bad curve nor a crash costs the rest."""

import html.parser
import re

import pytest
from factories import make_failure, make_record, make_spec, write_run
from made_up import both_texts, made_up_records, made_up_specs, report_on, write
from markdown_it import MarkdownIt

from benchmark.console import escape_markdown
from benchmark.report import page

pytestmark = pytest.mark.usefixtures("undrawn")


def tags(page):
    tags = set()
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.add(tag)
    parser.feed(page)
    return tags


def test_whatever_a_record_holds_is_shown_literally(tmp_path):
    evil = "<script>alert(1)</script>|**bold**[x](y)"
    specs = [make_spec(label=evil, task=f"glue/{evil}", seed=seed) for seed in range(2)]
    records = [make_record(specs[0]), make_failure(specs[1], "failed", evil + "\n# heading")]
    page, text = both_texts(write(tmp_path, specs, records, description=evil))

    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert page.count("<script") == 1 and not tags(page) & {"strong", "a", "img"}
    assert not tags(rendered) & {"script", "strong", "b"} and rendered.count("<a ") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    for block in re.split(r"\n\n", text):
        if block.startswith("|"):
            unescaped = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(unescaped) == 1, f"rows of unequal width:\n{block}"


@pytest.mark.parametrize("value", ["a|b", "_x_", "`c`", "<b>", "# h", "*s*", "back\\slash", "a_b"])
def test_markdown_escape_round_trips_through_a_parser(value):
    table = f"| h |\n| --- |\n| {escape_markdown(value)} |\n"
    tokens = MarkdownIt("commonmark").enable("table").parse(table)
    cell = [token for token in tokens if token.type == "inline"][1]
    assert "".join(child.content for child in cell.children) == value


def test_an_unreadable_curve_is_named_and_the_rest_is_drawn(tmp_path):
    specs = made_up_specs()
    records = made_up_records(specs)
    folder = tmp_path / "results"
    records = [write_run(folder, record, 5) for record in records]
    (folder / records[0].curve).write_text("step,loss\n1,not a number\n")
    (folder / records[1].curve).unlink()
    out = report_on(tmp_path, specs, records)
    _, text = both_texts(out)
    assert f"{records[0].curve}: not drawn" in text and f"{records[1].curve}: not drawn" in text
    assert len(list((out / "plots").glob("loss_*.svg"))) == 1


def test_a_crash_leaves_the_old_report(tmp_path, monkeypatch):
    specs = made_up_specs()
    out = write(tmp_path, specs, made_up_records(specs))
    before = {p: p.read_bytes() for p in out.rglob("*.*")}

    def crash(*_):
        raise RuntimeError("disk full")

    monkeypatch.setattr(page.tables, "write_csv", crash)
    with pytest.raises(RuntimeError):
        write(tmp_path, specs[:3], made_up_records(specs[:3]), replace=True)
    assert {p: p.read_bytes() for p in out.rglob("*.*")} == before
    assert [p.name for p in out.parent.iterdir()] == ["made_up"]
