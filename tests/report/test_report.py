"""The written report: what it shows and what it hides."""

import csv
import dataclasses
import math
import re

import numpy as np
import pytest
from factories import make_failure, make_record, make_spec, write_answers
from made_up import (
    answer_row,
    both_texts,
    made_up_records,
    made_up_specs,
    read_csv,
    report_on,
    write,
)

from benchmark.analysis import verdicts
from benchmark.errors import UserError
from benchmark.timing import speed_record

pytestmark = pytest.mark.usefixtures("undrawn")

ACCURACY = "accuracy, 95 %"


def test_the_answer_comes_first_and_nothing_is_bold_without_a_test(tmp_path):
    specs = made_up_specs()
    out = write(tmp_path, specs, made_up_records(specs))
    page, text = both_texts(out)
    full, hift = answer_row(text, "full"), answer_row(text, "hift")
    assert full[ACCURACY] == "0.9100 ± 0.0100" and hift[ACCURACY] == "0.8100 ± 0.0100"
    assert (full["verdict"], hift["verdict"]) == ("baseline", "–")
    assert (hift["device MiB"], hift["of full"], hift["seeds"]) == ("150.0", "0.38", "3")
    assert (hift["options"], hift["learning rate"]) == ("m=1, order=bottom2up", "5e-05")
    assert "<strong>" not in page and "**" not in text
    first, *_ = text.removeprefix("# made_up\n\n").split("\n\n")
    for said in (
        "3 strategies are compared on glue/sst2, with minilm",
        "train on 2,000 examples (real data from a mirror) and are scored by accuracy on 872",
        "with 3 seeds each",
        "on 2026-01-02 on a CPU (made up), at commit abc1234.",
        "hift needs 38 % and lora needs 45 %",
    ):
        assert said in first and said in page
    assert page.index(first[:60]) < page.index("<table>") < page.index("<svg")
    assert "full is not ranked" in text and "names no predictions" in text
    assert "12.50%" in text and "11.25%" in text and "twin" not in text


REFERENCES = [int(number % 3 > 0) for number in range(400)]


def answered(tmp_path, rates, seeds=3, **fields):
    """A report on runs whose answers are right where skill exceeds difficulty plus noise."""
    difficulty = np.random.default_rng(0).normal(0, 1, 400)
    specs = [make_spec(label=label, seed=seed) for label in rates for seed in range(seeds)]
    written = []
    for number, spec in enumerate(specs):
        luck = np.random.default_rng(number + 1).normal(0, 0.5, 400)
        right = difficulty + luck < rates[spec.label]
        folder = tmp_path / "results"
        written.append(write_answers(folder, make_record(spec), right, REFERENCES))
    return report_on(tmp_path, specs, written, **fields), written


def test_bold_and_verdicts_follow_the_test(tmp_path):
    out, written = answered(tmp_path, {"full": 1.5, "lora": 1.5, "head": -1.0})
    page, text = both_texts(out)
    rows = {label: answer_row(text, label) for label in ("full", "lora", "head")}
    assert {label: "**" in row[ACCURACY] for label, row in rows.items()} == {
        "full": True,
        "lora": True,
        "head": False,
    }
    assert page.count("<strong>") == 2
    verdicts = [row["verdict"] for row in rows.values()]
    assert verdicts == ["baseline", "not separable", "worse"]
    scores = [record.scores.main for record in written]
    numbers = re.findall(r"[-+]?\d\.\d+", rows["head"]["minus full, 95 %"])
    difference, low, high = map(float, numbers)
    assert difference == pytest.approx(np.mean(scores[6:]) - np.mean(scores[:3]), abs=1e-4)
    assert low < difference < high < 0
    score, low, high = map(float, re.findall(r"\d\.\d+", rows["head"][ACCURACY]))
    assert score == pytest.approx(np.mean(scores[6:]), abs=1e-4) and low < score < high
    errors = [math.sqrt(r.scores.main * (1 - r.scores.main) / 399) for r in written[6:]]
    assert high - score > 1.9 * np.mean(errors) / 3**0.5, "no narrower than examples allow"
    assert f"(3), se {np.mean(errors):.4f}" in text
    assert "has the best mean; not separable from it: " in text and "Worse: head." in text


def test_the_others_are_compared_with_the_baseline_that_the_matrix_names(tmp_path):
    out, written = answered(tmp_path, {"full": 1.5, "head": -1.0, "lora": 1.0}, baseline="head")
    page, text = both_texts(out)
    full, head = answer_row(text, "full"), answer_row(text, "head")
    assert (head["verdict"], head["of head"], full["verdict"]) == ("baseline", "1.00", "better")
    scores = [record.scores.main for record in written]
    difference = float(re.search(r"[-+]\d\.\d+", full["minus head, 95 %"])[0])
    assert difference == pytest.approx(np.mean(scores[:3]) - np.mean(scores[3:6]), abs=1e-4)
    assert "Of the peak memory (counted tensor bytes, CPU) of head, 100.0 MiB" in text
    assert "difference to head" in text and "minus full" not in page


def test_differences_show_intervals_tests_and_a_verdict_in_words(tmp_path):
    out, written = answered(tmp_path, {"full": 1.5, "lora": 1.5, "head": -1.0})
    _, text = both_texts(out)
    (row,) = [line for line in text.splitlines() if line.startswith("| full | head |")]
    verdict, difference, interval, p, models = (x.strip() for x in row.split("|")[3:-1])
    scores = [record.scores.main for record in written]
    low, high = map(float, interval.split(" to "))
    assert verdict == "full is better" and p == "&lt;0.001" and models.count("&lt;0.001") == 3
    assert float(difference) == pytest.approx(np.mean(scores[:3]) - np.mean(scores[6:]), abs=1e-4)
    assert low < float(difference) < high and low > 0
    (row,) = [
        line for line in text.splitlines() if re.match(r"\| (full \| lora|lora \| full) ", line)
    ]
    assert re.search(
        r"not separable; (about \d+|more than 100) seeds would be needed|no number of", row
    )

    rows = list(csv.DictReader((out / "differences.csv").read_text().splitlines()))
    assert len(rows) == 3
    (csv_row,) = [row for row in rows if (row["better"], row["other"]) == ("full", "head")]
    assert float(csv_row["mean"]) == pytest.approx(np.mean(scores[:3]) - np.mean(scores[6:]))
    assert (csv_row["seeds"], csv_row["examples"], csv_row["separable"]) == ("3", "400", "True")


def test_whether_a_strategy_beats_the_majority_class_is_tested(tmp_path):
    out, _ = answered(tmp_path, {"full": 1.5, "head": 0.4})
    _, text = both_texts(out)
    assert "Against the majority class, whose accuracy is 0.6650:" in text
    table = text[text.index("Against the majority class") :]
    assert "| full | better |" in table and "| head | not separable" in table
    assert "most frequent class has an accuracy of 0.6650" in text and "one of 0.5000." in text


def test_nothing_is_bold_where_nothing_is_separable(tmp_path):
    out, _ = answered(tmp_path, {"full": 1.5, "lora": 1.5})
    page, text = both_texts(out)
    assert "<strong>" not in page and "**" not in text
    sentence = "Not separable: no strategy differs significantly"
    assert sentence in text and sentence in page


def test_one_seed_has_differences_and_no_verdict(tmp_path):
    out, _ = answered(tmp_path, {"full": 1.5, "head": -1.0}, seeds=1)
    page, text = both_texts(out)
    assert "<strong>" not in page and "Fewer than two strategies can be ranked." in text
    (row,) = [line for line in text.splitlines() if line.startswith("| full | head |")]
    assert "not tested: one seed" in row and "&lt;0.001" in row, "of its models McNemar's test"


def test_of_many_pairs_with_one_seed_those_with_the_best_mean_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(verdicts, "MOST_PAIRS", 2)
    out, _ = answered(tmp_path, {"head": -1.0, "lora": 1.0, "full": 1.5}, seeds=1)
    _, text = both_texts(out)
    assert "Of 3 pairs, only those with full are shown." in text
    assert "| full | lora |" in text and "| full | head |" in text and "| lora | head |" not in text


def test_incomplete_cells_show_no_mean_and_every_reason(tmp_path):
    specs = made_up_specs()
    records = made_up_records(specs)
    records[4] = make_failure(specs[4], "oom", "needs 3 GiB more")
    records[8] = make_failure(specs[8], "failed", "ValueError: no such column")
    del records[2]
    for text in both_texts(write(tmp_path, specs, records)):
        assert not re.search(r"\d ± \d", text)
        assert text.count("– (2 of 3)") == 2 * 3 and "3 of 9 runs have no score yet." in text
        for part in ("oom", "needs 3 GiB more", "no such column", "missing", specs[2].run_id):
            assert part in text


def test_means_over_tasks_where_every_strategy_has_the_same_metric_in_all(tmp_path):
    tasks = [made_up_specs(), made_up_specs(task="glue/mrpc")]
    specs = [spec for of_task in tasks for spec in of_task]
    _, text = both_texts(write(tmp_path / "all", specs, made_up_records(specs)))
    lora = answer_row(text, "lora")
    assert (lora["mean accuracy of 2"], lora["minus full"]) == ("0.8050", "-0.1050")
    assert lora["of full"] == "0.45 to 0.45" and "## Each task" in text
    lacking = [spec for spec in specs if (spec.label, spec.task) != ("lora", "glue/mrpc")]
    _, text = both_texts(write(tmp_path / "one", lacking, made_up_records(lacking)))
    assert answer_row(text, "glue/mrpc")["strategy"] == "full" and "## Each task" not in text


def test_options_are_those_in_which_strategies_differ_and_times_are_those_of_speed(tmp_path):
    specs = [
        make_spec(),
        make_spec(strategy="hift", label="hift_m2", options={"group_size": 2}),
        make_spec(strategy="hift", label="hift_sgd", optimizer="sgd", options={"order": "random"}),
        make_spec(strategy="hift", label="hift_m4", options={"group_size": 4}),
    ]
    fields = {"name": "hift", "median_ms": 1.0, "p90_ms": 1.0, "mean_ms": 1.0, "ratio_to_full": 0.7}
    fields |= {"ratio_low": 0.69, "ratio_high": 0.71, "ratio_to_limit": 1.0, "steps": 9}
    row = speed_record.Row(**fields, saved_activation_bytes=1, state_bytes=1, m=2)
    of = {"group_size": 2, "batch_size": 8, "seq_len": 8, "sweeps": 3, "code": {}, "load": 0.1}
    of |= {"model": "minilm", "optimizer": "adamw", "options": {"group_size": 2}}
    own = {"name": "hift:group_size=4", "strategy": "hift", "options": {"group_size": 4}}
    both = [row, dataclasses.replace(row, ratio_to_full=0.8, **own)]
    timed = speed_record.Timed(**of, started="2026", rows=both, environment={"cores": 2})
    noisy = dataclasses.replace(timed, load=9.0, rows=[dataclasses.replace(row, ratio_to_full=9)])
    _, text = both_texts(
        report_on(tmp_path, specs, [make_record(s) for s in specs], timings=[timed, noisy])
    )
    rows = [answer_row(text, spec.label) for spec in specs]
    assert [row["options"] for row in rows] == [
        "optimizer=adamw",
        "m=2, order=bottom2up, optimizer=adamw",
        "m=1, order=random, optimizer=sgd",
        "m=4, order=bottom2up, optimizer=adamw",
    ]
    assert [row["step time"] for row in rows] == ["–", "0.70", "–", "0.80"]


def test_a_report_of_more_runs_is_replaced_only_on_request(tmp_path):
    specs = made_up_specs()
    out = write(tmp_path, specs, made_up_records(specs))
    before = both_texts(out)
    with pytest.raises(UserError, match=r"report of 9 runs, and the records have 0.*--replace"):
        report_on(tmp_path, specs, [])
    assert both_texts(out) == before
    report_on(tmp_path, specs, [], replace=True)
    assert "9 of 9 runs have no score yet." in both_texts(out)[1]


def test_memory_on_a_cpu_is_never_called_gpu_memory(tmp_path):
    specs = made_up_specs()
    records = made_up_records(specs)
    for text in both_texts(write(tmp_path / "cpu", specs, records)):
        assert "counted tensor bytes" in text and "GPU memory" not in text
    cuda = [
        dataclasses.replace(r, memory=dataclasses.replace(r.memory, kind="cuda")) for r in records
    ]
    for text in both_texts(write(tmp_path / "cuda", specs, cuda)):
        assert "counted tensor bytes" not in text and "peak GPU memory" in text


def test_a_twin_score_is_labelled_wherever_it_stands(tmp_path):
    specs = made_up_specs(data="twin")
    out = write(tmp_path, specs, made_up_records(specs))
    for text in both_texts(out):
        assert "compared on glue/sst2 (twin data), with minilm" in text
        assert "| glue/sst2 (twin data) |" in text or "<td>glue/sst2 (twin data)</td>" in text
        assert "generated data or a model with random weights" in " ".join(text.split())
    rows = read_csv(out)
    assert {row["data_source"] for row in rows} == {"twin"}


def test_differences_are_printed(tmp_path):
    specs = made_up_specs()
    specs[3] = make_spec(strategy="hift", seed=0, batch_size=99)
    for text in both_texts(write(tmp_path, specs, made_up_records(specs))):
        assert "batch_size" in text and f"99 ({specs[3].run_id})" in text
        assert "No differences: " not in text


def test_a_matrix_without_any_record_has_a_report(tmp_path):
    specs = made_up_specs()
    out = write(tmp_path, specs, [])
    _, text = both_texts(out)
    assert "9 of 9 runs have no score yet." in text and "| missing | not run yet |" in text
    assert not list((out / "plots").iterdir())


def test_csv_has_unrounded_numbers(tmp_path):
    specs = made_up_specs()
    out = write(tmp_path, specs, made_up_records(specs))
    rows = {row["label"]: row for row in read_csv(out)}
    assert float(rows["lora"]["mean"]) == pytest.approx(0.805, abs=1e-15)
    assert rows["hift"]["peak_bytes"] == str(150 * 2**20)
    assert rows["full"]["memory_kind"] == "counted_cpu_tensors"
