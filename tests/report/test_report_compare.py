"""The comparison of two sets of records, the index of all reports, and what `report` refuses."""

import numpy as np
import pytest
from factories import make_record, make_spec, write_answers

from benchmark.analysis import comparison
from benchmark.report.index import write_index

pytestmark = pytest.mark.usefixtures("undrawn")
REFERENCES = [1] * 200
MATRIX = """
name: made_up
defaults: {model: minilm, data: mirror, epochs: 3, lr: 5.0e-5, seeds: [0, 1]}
tasks: [glue/sst2]
strategies: {full: {}, head: {}}
"""


def fill(folder, rates, **fields):
    """Records of two seeds for each label; returns the scores of examples by label and seed."""
    scores = {}
    for label, rate in rates.items():
        for seed in range(2):
            noise = np.random.default_rng([seed, round(100 * rate)]).random(200)
            spec = make_spec(strategy=label, seed=seed, **fields)
            write_answers(folder, make_record(spec), noise < rate, REFERENCES)
            scores.setdefault(label, {})[seed] = (noise < rate).astype(float)
    return scores


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.yaml").write_text(MATRIX)
    return tmp_path


def test_two_folders_of_one_matrix_are_compared_cell_by_cell(here, cli):
    before = fill(here / "old" / "made_up", {"full": 0.9, "head": 0.8, "lora": 0.5})
    after = fill(here / "new" / "made_up", {"full": 0.9, "head": 0.4}, batch_size=8)
    code, out, err = cli("report", "--compare", "old/made_up", "new/made_up")
    assert code == 0, err
    assert out == "reports/made_up-old_vs_made_up-new/index.html\n"
    text = (here / "reports/made_up-old_vs_made_up-new/report.md").read_text()
    assert "better in 0, worse in 1, and not separable in 1; 0 could not be tested." in text
    rows = {
        cells[3].strip(): [cell.strip() for cell in cells]
        for line in text.splitlines()
        if len(cells := line.split("|")) > 10
    }
    assert rows["full"][8] == "not separable" and rows["head"][8] == "worse"
    versions = {"before": before["head"], "after": after["head"]}
    alone = comparison.pairs(versions)["before", "after"]
    both = comparison.between({"head": before["head"]}, {"head": after["head"]})["head"]
    assert (-both.mean, -both.high) == pytest.approx((alone.mean, alone.low))
    assert rows["head"][7].startswith(f"{-alone.mean:+.4f} ")
    assert "Only in made_up-old: glue/sst2, minilm, lora." in text
    assert "| batch_size | 16 | 8 | all |" in text

    code, _, err = cli("report", "--compare", "old/made_up", "old/made_up")
    assert code == 2 and "the same folder" in err
    code, _, err = cli("report", "--compare", "m.yaml", "new/made_up")
    assert code == 2 and "no records in results/made_up" in err
    assert cli("report")[0] == 2


def test_a_report_is_not_lost_and_stands_in_the_index(here, cli):
    fill(here / "results" / "made_up", {"full": 0.9, "head": 0.8})
    assert cli("report", "m.yaml")[0] == 0
    code, _, err = cli("report", "m.yaml", "--results", "nowhere")
    assert (
        code == 2 and "has a report of 4 runs, and the records have 0" in err and "--replace" in err
    )
    for index in (here / "reports" / "index.html", here / "reports" / "index.md"):
        text = index.read_text().replace("\\", "")
        assert "made_up/" in text and "2 strategies are compared on glue/sst2" in text
        assert "4 runs with a score." in text
    assert cli("report", "m.yaml", "--results", "nowhere", "--replace")[0] == 0
    assert "4 of 4 runs have no score yet." in (here / "reports" / "index.md").read_text()

    (here / "reports" / "index.html").write_text("<title>mine</title>")
    code, _, err = cli("report", "m.yaml")
    assert code == 0 and "not written by hift-bench, so it stays" in err
    assert (here / "reports" / "index.html").read_text() == "<title>mine</title>"


def test_what_a_page_says_of_itself_is_text_in_the_index(tmp_path):
    (tmp_path / "evil").mkdir()
    page = '<title>&lt;b&gt; · hift-benchmark</title><meta name="description" content="&lt;script&gt;">'
    (tmp_path / "evil" / "index.html").write_text(page)
    text = write_index(tmp_path).read_text()
    assert "&lt;b&gt;</a>" in text and "<p>&lt;script&gt;</p>" in text
