"""Tables on stdout: the same rows in every format, read back by that format's own reader."""

import csv
import io
import json
import re

import pytest
from factories import make_spec
from markdown_it import MarkdownIt
from rich.console import Console

from benchmark.commands.options import say
from benchmark.commands.progress import Bars
from benchmark.console import Format, show

ROWS = [
    {"name": "plain", "n": 3, "score": 0.123456789, "note": None},
    {"name": "a|b <i>x</i>, [bold]", "n": None, "score": 1e-9, "note": 'said "so"\nand on'},
]


@pytest.fixture
def printed(capsys):
    def printed(rows, format, **options):
        capsys.readouterr()
        show(rows, format, **options)
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return printed


def test_json_is_the_rows(printed):
    assert json.loads(printed(ROWS, Format.json, title="not in it")) == ROWS
    assert json.loads(printed([], Format.json)) == []


def test_json_refuses_nan(printed):
    with pytest.raises(ValueError, match="JSON"):
        printed([{"a": float("nan")}], Format.json)


def test_csv_keeps_every_digit_and_any_text(printed):
    found = list(csv.DictReader(io.StringIO(printed(ROWS, Format.csv), newline="")))
    assert [row["name"] for row in found] == [row["name"] for row in ROWS]
    assert float(found[0]["score"]) == ROWS[0]["score"]
    assert found[1]["n"] == "" and found[1]["note"] == ROWS[1]["note"]


def test_markdown_is_a_table_whose_values_stay_text(printed):
    html = MarkdownIt("commonmark").enable("table").render(printed(ROWS, Format.md))
    assert html.count("<table>") == 1 and html.count("<tr>") == 1 + len(ROWS)
    cells = re.findall(r"<td>(.*?)</td>", html, re.DOTALL)
    assert len(cells) == len(ROWS) * 4, "a bar or a line end in a value makes no cell"
    assert "a|b &lt;i&gt;x&lt;/i&gt;" in html
    assert printed([], Format.md) == ""


def test_text_shows_every_value_and_takes_no_markup(printed):
    out = printed(ROWS, Format.text, title="a title")
    for said in ("a title", "plain", "0.1235", "[bold]", "1e-09"):
        assert said in out
    assert printed([], Format.text, title="t") == "t: nothing\n"
    assert printed([], Format.text, empty="no runs") == "no runs\n"


def test_no_value_is_markup_or_reaches_the_terminal_as_a_command(printed, capsys):
    evil = "![x](http://e.example/x.png) **b** \x1b[2J\x9b2J\u202e"
    html = MarkdownIt("commonmark").enable("table").render(printed([{"a": evil}], Format.md))
    assert "<img" not in html and "<a " not in html and "<strong" not in html
    table = printed([{"a": evil}], Format.text)
    say(evil)
    Bars(Console(stderr=True), None, 1).started(make_spec(model="\x1b[2J"), 3)
    for shown in (table, capsys.readouterr().err):
        assert r"\x1b[2J" in shown
        assert not {c for c in shown if not c.isprintable()} - {"\n"}


def test_a_table_has_80_columns_and_splits_no_id(printed):
    ids = ["glue-sst2_minilm_hift-m1-reference_s0_lr0.0008", "full"]
    story = "no more than a few words of this fit beside the id, so that it takes several lines"
    rows = [{"run_id": name, "n": 1.0, "none": None, "why": story} for name in ids]
    lines = printed(rows, Format.text).splitlines()
    assert max(map(len, lines)) <= 80 and "none" not in lines[0]
    assert [line.split()[0] for line in lines if "1" in line.split()[1:2]] == ids
    assert " ".join(line[51:].strip() for line in lines[2:]) == f"{story} {story}"
    brief = printed(rows, Format.text, brief=("n", "gone", "run_id")).splitlines()
    assert brief[0].split() == ["n", "run_id"], "in its order, without what the rows lack"
    with_a_long_id = printed([{"run_id": "x" * 90, "why": story}], Format.text)
    assert "x" * 90 in with_a_long_id, "a table is as wide as its ids"


def test_words_that_fit_into_80_columns_stay_whole_and_within_them(printed):
    """rich alone made this one of 88."""
    row = {
        "model, batch x length": "gpt2-12x512, 4 x 128",
        "step of": "hift:update=in_backward, m = 1",
        "over full (range)": "0.60 (0.60-0.60)",
        "over bare": "-",
        "verdict": "inconclusive: 0.41 to 0.55 over 4 sweeps",
    }
    lines = printed([row, row], Format.text).splitlines()
    assert max(map(len, lines)) <= 80
    shown = " ".join(lines).split()
    assert all(shown.count(word) >= 2 for text in row.values() for word in text.split())


def test_a_wide_table_has_every_column_and_a_line_for_each_row(printed):
    long = "words " * 40 + "end"
    out = printed(
        [{"a": long, "b": "y" * 60, "none": None}], Format.text, brief=("b",), wide=True
    ).splitlines()
    assert out[0].split() == ["a", "b", "none"]
    assert len(out) == 3 and long in out[2] and "y" * 60 in out[2]
