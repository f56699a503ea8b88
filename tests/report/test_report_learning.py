"""The section on learning curves: sentences, picture and CSV, and the table of tokens by group."""

import csv
import dataclasses
import re
from pathlib import Path

import pytest
from factories import make_cells, make_failure, make_record, make_spec, write_run
from runs import Watch

from benchmark.records import record as records
from benchmark.records.record import Evaluation, curve_text
from benchmark.report import learning
from benchmark.report.page import write_report
from benchmark.tracking import tracker

STEPS = (10, 20, 40)
SCORES = {"full": (0.5, 0.7, 0.9), "hift": (0.4, 0.6, 0.8), "lora": (0.5, 0.7, 0.895)}
GROUPS = {"full": 1, "hift": 4, "lora": 1}


def looked(label, seed, *, scored=True, group_tokens=()):
    spec = make_spec(strategy=label, seed=seed)
    looks = [
        Evaluation(
            step=step,
            examples=16 * step,
            tokens=300 * step,
            flops=10**12 * step // (2 if label == "hift" else 1),
            seconds=float(step),
            score=score + 0.01 * seed if scored else None,
            dev_loss=1 - score,
        )
        for step, score in zip(STEPS, SCORES[label], strict=True)
    ]
    record = make_record(spec, evaluations=looks)
    return dataclasses.replace(
        record,
        params=dataclasses.replace(record.params, groups=GROUPS[label]),
        train=dataclasses.replace(record.train, group_tokens=list(group_tokens)),
    )


def everyone(**fields):
    return [looked(label, seed, **fields) for label in SCORES for seed in range(2)]


def write(tmp_path, runs, baseline=None):
    specs = [make_spec(strategy=r.spec["strategy"], seed=r.spec["seed"]) for r in runs]
    folder, out = tmp_path / "results", tmp_path / "reports" / "made_up"
    written = [write_run(folder, r, 5) if r.status == "success" else r for r in runs]
    cells = make_cells(specs, baseline)
    write_report(name="made_up", cells=cells, records=written, trials=[], folder=folder, out=out)
    return out


def section(out, title="## Learning curves"):
    text = (out / "report.md").read_text()
    return text.partition(title)[2].partition("\n## ")[0]


def rows_of(text, label):
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith(f"| {label} |")
    ]


def test_tables_say_what_was_compared_and_how_it_came_out(tmp_path, undrawn):
    text = section(write(tmp_path, everyone()))
    assert rows_of(text, "strategy") == [
        ["strategy", "at 640 examples", "at 20 TFLOP", "at 10 updates"],
        [
            *(
                "strategy",
                "at equal examples",
                "at equal compute",
                "at equal updates per parameter",
            ),
            *("steps to full's final score − 0.01", "TFLOP to full's final score − 0.01"),
        ],
    ]
    equal, against = rows_of(text, "hift")
    assert equal[1:] == ["0.8050 ± 0.0071 (2)"] * 3
    assert against[1:] == [
        "-0.1000 ± 0.0000 (2) at 640 examples",
        "+0.1000 ± 0.0000 (2) at 20 TFLOP",  # full after half of its 40 steps
        "+0.3000 ± 0.0000 (2) at 10 updates",
        "never",
        "never",
    ]
    _, lora = rows_of(text, "lora")
    assert lora[4:] == ["39 ± 0 (2)", "39.49 ± 0 (2)"], "0.89 lies between looks 0.7 and 0.895"
    equal, against = rows_of(text, "full")
    assert equal[1:] == ["0.9050 ± 0.0071 (2)", "0.7050 ± 0.0071 (2)", "0.5050 ± 0.0071 (2)"]
    assert against[1:4] == ["", "", ""] and against[4] == "39 ± 0 (2)"
    page = (tmp_path / "reports" / "made_up" / "index.html").read_text()
    assert "<h2>Learning curves</h2>" in page and "learning.csv" in page
    assert all(cell.replace("'", "&#39;") in page for cell in lora)


def test_the_reference_is_the_baseline_that_the_matrix_names(tmp_path, undrawn):
    text = section(write(tmp_path / "lora", everyone(), baseline="lora"))
    assert "steps to lora's final score − 0.01" in text
    assert rows_of(text, "hift")[1][1] == "-0.0950 ± 0.0000 (2) at 640 examples"
    assert rows_of(text, "lora")[1][1:4] == ["", "", ""]
    text = section(write(tmp_path / "none", everyone()[:4], baseline="lora"))
    assert "steps to full's final score" in text, "the baseline has no cell here"


def test_a_seed_that_stays_below_is_counted_and_gives_no_mean(tmp_path, undrawn):
    runs = everyone()
    slow = runs[5].evaluations
    slow = [*slow[:-1], dataclasses.replace(slow[-1], score=0.8)]
    runs[5] = dataclasses.replace(runs[5], evaluations=slow)
    _, lora = rows_of(section(write(tmp_path, runs)), "lora")
    assert lora[4:] == ["1 of 2 seeds only"] * 2


def test_a_note_says_what_cannot_be_compared(tmp_path, undrawn):
    runs = [record for record in everyone() if record.spec["strategy"] != "full"]
    text = section(write(tmp_path / "without", runs))
    assert "No complete strategy is full fine-tuning" in text
    assert len(rows_of(text, "hift")) == 1

    failed = make_failure(make_spec(strategy="lora", seed=2), "diverged", "the loss became nan")
    text = section(write(tmp_path / "failed", [*everyone(), failed]))
    assert "Left out: lora; 2 of 3 seeds have evaluations." in text
    assert rows_of(text, "lora") == []

    few = dataclasses.replace(
        looked("hift", 0), params=dataclasses.replace(looked("hift", 0).params, groups=8)
    )
    text = section(write(tmp_path / "few", [looked("full", 0), few]))
    equal, against = rows_of(text, "hift")
    assert equal[3] == "too few: 5 updates" and against[3] == "not comparable"

    text = section(write(tmp_path / "text", everyone(scored=False)))
    assert "The evaluations during training have no score, so the held-out loss is compared" in text
    assert "Held-out loss of all strategies at an equal amount" in text and "steps to" not in text
    assert rows_of(text, "hift")[0][1] == "0.2000 ± 0.0000 (2)"


def test_every_look_of_every_run_is_in_the_csv(tmp_path, undrawn):
    failed = make_failure(make_spec(strategy="lora", seed=2), "diverged", "the loss became nan")
    failed = dataclasses.replace(failed, evaluations=looked("lora", 0).evaluations[:1])
    runs = [*everyone(), failed]
    out = write(tmp_path, runs)
    with open(out / "learning.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 6 + 1 and rows[-1]["status"] == "diverged"
    assert {row["run_id"] for row in rows} == {record.run_id for record in runs}
    hift = [row for row in rows if row["label"] == "hift" and row["seed"] == "1"]
    assert [float(row["updates"]) for row in hift] == [2.5, 5, 10]
    assert [float(row["score"]) for row in hift] == pytest.approx([0.41, 0.61, 0.81])
    assert [row["flops"] for row in hift] == [str(5 * 10**11 * step) for step in STEPS]
    assert [float(row["seconds"]) for row in hift] == [10, 20, 40] and hift[0]["dev_score"] == ""


def test_runs_without_looks_leave_no_section_and_no_old_csv(tmp_path, undrawn):
    out = write(tmp_path, everyone())
    assert (out / "learning.csv").exists()
    assert write(tmp_path, [make_record(make_spec(seed=seed)) for seed in range(9)]) == out
    assert "Learning curves" not in (out / "report.md").read_text()
    assert not (out / "learning.csv").exists() and not list(out.glob("plots/learning*"))


def test_pictures_draw_mean_and_spread_against_each_cost(tmp_path, undrawn):
    write(tmp_path, everyone())
    by_cost = {
        title.partition(": along ")[2]: drawing
        for title, drawing in undrawn.items()
        if ": along " in title
    }
    wanted = {
        "optimizer steps": [10, 20, 40],
        "seconds of training": [10, 20, 40],
        "TFLOP of training": [5, 10, 20],
        "updates per parameter": [2.5, 5, 10],
    }
    assert by_cost.keys() == wanted.keys()
    for cost, across in wanted.items():
        above, below = by_cost[cost].figure.axes
        assert (above.get_ylabel(), below.get_ylabel()) == ("score", "held-out loss")
        assert below.get_xlabel() == cost
        assert list(above.get_lines()[1].get_xdata()) == across
        assert list(above.get_lines()[1].get_ydata()) == pytest.approx([0.405, 0.605, 0.805])
        assert list(below.get_lines()[1].get_ydata()) == pytest.approx([0.6, 0.4, 0.2])
        band = above.collections[1].get_paths()[0].vertices
        assert band[:, 1].max() == pytest.approx(0.805 + 0.01 / 2**0.5)


def test_time_is_no_axis_where_another_process_took_the_machine(tmp_path, undrawn):
    runs = everyone()
    runs[0] = dataclasses.replace(runs[0], train=dataclasses.replace(runs[0].train, others=0.5))
    write(tmp_path, runs)
    costs = [title for title in undrawn if ": along " in title]
    assert len(costs) == 3 and not any("seconds" in title for title in costs)


def uneven(tmp_path, tokens, group_tokens, runs=1):
    """The rows of the table of tokens by group where the first run's curve has these tokens."""
    runs = [
        looked("hift", seed, group_tokens=group_tokens if seed == 0 else [1.0, 1.0])
        for seed in range(runs)
    ]
    folder = tmp_path / "results"
    written = [write_run(folder, record, 5) for record in runs]
    rows = [
        {"step": i + 1, "loss": 1.0, "trainable_ratio": 0.5, "group": i % 2, "tokens": count}
        for i, count in enumerate(tokens)
    ]
    (folder / written[0].curve).write_text(curve_text(rows, list(rows[0]) if rows else ["step"]))
    for record in written[1:]:
        (folder / record.curve).unlink()  # not asked for: its groups do not differ
    return learning.uneven_table(written, folder)


def test_a_run_whose_groups_saw_different_tokens_is_named_with_what_chance_would_do(tmp_path):
    table, runs = uneven(tmp_path / "a", [100, 150, 104, 146, 96, 154] * 5, [100.0, 150.0], runs=3)
    ((run, groups, span, differ, verdict),) = table.rows
    assert run == looked("hift", 0).run_id and runs == 3
    assert (groups, span, differ) == ("2", "100.0 to 150.0", "40%")
    assert re.fullmatch(r"more than chance \(p = \de-\d\d\)", verdict)

    table, _ = uneven(tmp_path / "b", [80, 150, 140, 90, 100, 120], [100.0, 120.0])
    assert table.rows[0][3] == "18%" and re.fullmatch(
        r"chance explains it \(p = 0\.\d\)", table.rows[0][4]
    )
    assert uneven(tmp_path / "c", [100, 110] * 5, [100.0, 110.0])[0].rows == ()


def test_a_lone_small_p_is_no_alarm_among_many_runs(tmp_path):
    tokens = [100, 116, 105, 123, 112, 130, 90, 118, 110, 125]
    alone, _ = uneven(tmp_path / "a", tokens, [103.4, 122.4])
    many, _ = uneven(tmp_path / "b", tokens, [103.4, 122.4], runs=50)
    p = re.search(r"p = (.*)\)", alone.rows[0][4]).group(1)
    assert 0.05 / 50 < float(p) < 0.05
    assert alone.rows[0][4].startswith("more than chance") and many.rows[0][4] == (
        f"chance explains it (p = {p})"
    )


def test_a_curve_that_cannot_tell_is_named(tmp_path):
    assert uneven(tmp_path / "a", [], [1.0, 2.0])[0].rows[0][4].startswith("unknown")
    assert uneven(tmp_path / "b", [100, 150], [1.0, 2.0])[0].rows[0][4].startswith("unknown")


def test_the_tokens_of_groups_are_in_the_report(tmp_path, undrawn):
    out = write(tmp_path / "even", [looked("hift", 0, group_tokens=[200.0, 201.0])])
    assert "Runs with groups: 1. In none" in section(out, "## Tokens by group")
    out = write(tmp_path / "odd", [looked("hift", 0, group_tokens=[200.0, 280.0])])
    text = section(out, "## Tokens by group")
    assert rows_of(text, looked("hift", 0).run_id)[0][2:4] == ["200.0 to 280.0", "33%"]
    assert "Tokens by group" not in (write(tmp_path / "none", everyone()) / "report.md").read_text()


MATRIX = """
defaults:
  {model: tiny-bert, data: twin, max_steps: 12, train_examples: 60, dev_examples: 20, eval_examples: 20,
   max_length: 24, batch_size: 4, eval_every: 4, lr: 1.0e-3}
tasks: [glue/sst2]
strategies: {full: {}, hift: {order: top2down}}
"""


@pytest.mark.slow
def test_real_runs_that_are_looked_at(tmp_path, monkeypatch, cli, in_process, undrawn):
    monkeypatch.chdir(tmp_path)
    Path("m.yaml").write_text(MATRIX)
    in_process()
    monkeypatch.setattr(tracker, "Tracker", lambda *_: Watch())
    code, _, err = cli("run", "m.yaml")
    assert code == 0, err
    by_id = {record.run_id: record for record in records.load_all(Path("results/m"))}
    by_step = {
        (row["run_id"], int(row["step"])): row
        for row in csv.DictReader(Path("reports/m/learning.csv").read_text().splitlines())
    }
    assert len(by_step) == 2 * 3
    text = section(Path("reports/m"))
    for run_id, record in by_id.items():
        groups = record.params.groups
        assert groups == (1 if record.spec["label"] == "full" else 6)
        assert float(by_step[run_id, 12]["score"]) == record.scores.main
        assert by_step[run_id, 12]["flops"] == str(record.train.flops)
        assert float(by_step[run_id, 8]["updates"]) == 8 / groups
    for record in by_id.values():
        equal = rows_of(text, record.spec["label"])[0]
        assert equal[1] == f"{record.scores.main:.4f} (1)"
    assert "at 48 examples" in text and "too few: 2 updates" in text
    assert len(list(Path("reports/m/plots").glob("learning*.svg"))) in (3, 4)
