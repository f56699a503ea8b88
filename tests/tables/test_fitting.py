"""The page of `fit --all`: what its cells say, that every claim has a source, and that it is one run's."""

import csv
import dataclasses
import re

import pytest

from benchmark.memory import bounds, depth, roofline, search, simulate
from benchmark.memory.setting import Setting
from benchmark.sizes import GIB
from benchmark.tables import fitting


@pytest.fixture
def needs(monkeypatch):
    """The bounds in place of simulated peaks; one model."""

    def peak(case, device="cuda"):
        total = 4 * GIB
        if case.strategy == "hift":
            state = bounds.state_bytes(case)
            total = 30 * GIB - 20 * GIB * (case.options.get("weights") == "stream")
        names = [field.name for field in dataclasses.fields(simulate.Peak)]
        usual = dict.fromkeys(names, 0) | {"moment": "step", "units": (), "moments": {}}
        host = 70 * GIB if case.strategy == "hift" and state else 0
        return simulate.Peak(**usual | {"parameters": total, "host": host, "groups": 14})

    monkeypatch.setattr(depth, "peak", peak)
    monkeypatch.setattr(fitting, "MODELS", ("gpt2-12x512",))
    monkeypatch.setattr(fitting, "HOSTS", (None, 64))
    monkeypatch.setattr(bounds, "on_host", lambda setting, state: 0)


@pytest.mark.slow
def test_the_page_says_what_fits_what_is_missing_and_what_others_report(needs, tmp_path, cli):
    code, out, _ = cli("fit", "--all", "--out", str(tmp_path))
    assert code == 0 and out.strip() == str(tmp_path / "index.html")
    with (tmp_path / "cells.csv").open() as file:
        rows = {(row["host_gib"], row["budget_gib"]): row for row in csv.DictReader(file)}
    assert len(rows) == len(fitting.BUDGETS) * len(fitting.HOSTS)
    assert (
        rows["", "8"]["precision"] == ""
        and "10.00 GiB of device memory" in rows["", "8"]["missing"]
    )
    assert (rows["", "12"]["weights"], rows["", "48"]["weights"]) == ("stream", "resident")
    assert rows["64", "48"]["optimizer"] == "sgd", "without state and masters"
    markdown, html = (tmp_path / "index.md").read_text(), (tmp_path / "index.html").read_text()
    for text in (markdown, html):
        assert "no GPU has measured" in text and "does not fit:<br>" in text
        assert "10.00 GiB, host 70.00 GiB<br>" in text
        assert text.count("13.72") == 2 and "arXiv 2605.21177" in text
    cells = [line.count("|") for line in markdown.splitlines() if line.startswith("| gpt2")]
    assert cells == [2 + len(fitting.BUDGETS) + 1] * len(fitting.HOSTS)


def test_every_figure_of_others_has_a_source_and_settings_that_can_be_simulated():
    entries = fitting.read().published
    systems = {entry.system.partition(",")[0] for entry in entries}
    assert {"ChunkFT", "MISA", "SlideFormer", "MegaTrain"} <= systems
    for entry in entries:
        assert entry.source and entry.ours
        for label, fields in entry.ours.items():
            setting = Setting(**fields)
            assert setting.batch_size * setting.seq_len == _tokens(label)
            assert label.startswith(setting.model)
            streams = setting.options.get("weights") == "stream"
            assert streams == ("streamed" in label)


def _tokens(label):
    """ "llama-7b, 1 x 1,024, ..." -> 1024."""
    batch, length = re.search(r", (\d+) x ([\d,]*\d)", label).groups()
    return int(batch) * int(length.replace(",", ""))


def test_models_fit_their_positions():
    assert search.sequence_length("roberta-base", 4096) == 512
    assert search.sequence_length("llama-7b", 4096) == 1024
    assert search.sequence_length("llama-7b", 64) == 64
    assert roofline.sizes(Setting(model="roberta-base")).positions == 512


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--all", "llama-7b"), "--all: takes no model"),
        (("llama-7b",), "give --budget"),
        (("llama-7b", "--budget", "8GiB", "--out", "here"), "--out: is where --all writes"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(arguments, said, cli):
    code, out, err = cli("fit", *arguments)
    assert code == 2 and not out and said in err and len(err.splitlines()) == 1
