"""Made-up records of three strategies, and the report on them as its readers find it."""

import csv

from factories import make_cells, make_record, make_spec, write_run

from benchmark.report.page import write_report

BASES = {"full": 0.90, "hift": 0.80, "lora": 0.795}
PEAKS = {"full": 400 * 2**20, "hift": 150 * 2**20, "lora": 180 * 2**20}


def made_up_specs(**fields):
    return [make_spec(strategy=name, seed=seed, **fields) for name in BASES for seed in range(3)]


def made_up_records(specs, **overrides):
    return [
        make_record(
            spec,
            score=BASES[spec.strategy] + 0.01 * spec.seed,
            peak=PEAKS[spec.strategy],
            **overrides,
        )
        for spec in specs
    ]


def write(tmp_path, specs, records, **fields):
    folder = tmp_path / "results"
    written = [write_run(folder, r, 5) if r.status == "success" else r for r in records]
    return report_on(tmp_path, specs, written, **fields)


def report_on(tmp_path, specs, written, trials=(), baseline=None, **fields):
    folder = tmp_path / "results"
    out = tmp_path / "reports" / "made_up"
    index = write_report(
        name="made_up",
        cells=make_cells(specs, baseline),
        records=written,
        trials=trials,
        folder=folder,
        out=out,
        **fields,
    )
    assert index == out / "index.html"
    return out


def both_texts(out):
    return (out / "index.html").read_text(), (out / "report.md").read_text()


def read_csv(out):
    return list(csv.DictReader((out / "cells.csv").read_text().splitlines()))


def answer_row(text, label):
    """The first row that begins with `label` in the first table of the Markdown, by column."""
    lines = text[text.index("\n|") :].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return dict(zip(cells[1], next(row for row in cells if row[0] == label), strict=True))
