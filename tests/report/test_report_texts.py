"""The section on all scores of a task and on generated texts, side by side."""

import dataclasses
import html.parser

import pytest
from factories import make_cells, make_record, make_spec, write_run

from benchmark.analysis import summary
from benchmark.records import predictions
from benchmark.records.predictions import Predictions
from benchmark.report import texts
from benchmark.report.page import write_report

NASTY = "<script>alert('|')</script> *bold* `x`"


def generated(folder, label, seed, texts, scores):
    """A run of E2E with its generated texts and its five scores; the first reference is `ref N`."""
    spec = make_spec(task="generation/e2e_nlg", model="tiny-gpt2", strategy=label, seed=seed)
    record = make_record(spec)
    record = dataclasses.replace(
        record,
        scores=dataclasses.replace(record.scores, main=scores["BLEU"], metric="BLEU", all=scores),
        predictions=f"predictions/{spec.run_id}.jsonl",
    )
    references = [[f"ref {i}", "another"] for i in range(len(texts))]
    table = Predictions(
        ids=[f"id{i}" for i in range(len(texts))],
        predictions=texts,
        references=references,
        scores=None,
    )
    predictions.write(folder / record.predictions, table)
    return write_run(folder, record)


@pytest.fixture
def page(tmp_path):
    folder = tmp_path / "results"
    records = [
        generated(folder, label, seed, texts, {"BLEU": bleu, "NIST": 10 * bleu})
        for label, seed, texts, bleu in (
            ("full", 0, [f"full {i}" for i in range(50)], 0.60),
            ("full", 1, ["not shown"] * 50, 0.70),
            ("hift", 0, [NASTY, *(f"hift {i} " + "w" * 500 for i in range(1, 50))], 0.50),
        )
    ]
    out = tmp_path / "report"
    cells = make_cells([make_spec(**run.spec) for run in records])
    write_report(name="e2e", cells=cells, records=records, trials=[], folder=folder, out=out)
    return (out / "report.md").read_text(), (out / "index.html").read_text()


def test_every_score_of_the_task_is_shown_with_its_spread(page):
    assert "| full | 0.6500 ± 0.0707 (2) | 6.50 ± 0.71 (2) |" in page[0]
    assert "| hift | 0.5000 (1) | 5.00 (1) |" in page[0]


def test_twenty_examples_of_the_first_seed_stand_side_by_side(page):
    rows = [line for line in page[0].splitlines() if line.startswith("| ref ")]
    assert len(rows) == texts.SHOWN == 20
    places = [int(row.split()[2]) for row in rows]
    assert places == sorted(set(places)) and places[0] == 0 and places[-1] >= 45
    assert all(f"| full {place} |" in row for place, row in zip(places, rows, strict=True))
    assert "not shown" not in page[0] and "Seeds shown: full 0, hift 0." in page[0]
    assert max(map(len, rows)) < 500 and rows[1].endswith("… |")


def test_texts_are_escaped(page):
    assert "<script>alert" not in page[0] + page[1]

    class Text(html.parser.HTMLParser):
        seen = ""

        def handle_data(self, data):
            self.seen += data

    text = Text()
    text.feed(page[1])
    assert NASTY in text.seen


def test_a_task_with_one_score_and_no_texts_has_no_section(tmp_path):
    records = [write_run(tmp_path, make_record(make_spec(strategy=s))) for s in ("full", "hift")]
    one = [
        dataclasses.replace(
            run, scores=dataclasses.replace(run.scores, all={"accuracy": run.scores.main})
        )
        for run in records
    ]
    rows = summary.rows(make_cells([make_spec(**run.spec) for run in one]), one)
    assert texts.sections(rows, one, tmp_path, [("glue/sst2", "minilm")]) == []
