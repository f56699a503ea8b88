"""Means over seeds, when they are shown, and the Pareto front."""

import dataclasses
import subprocess
import sys

import numpy
import pytest
from factories import make_cells, make_failure, make_record, make_spec

from benchmark.analysis import summary


def three_seeds(label: str = "full", strategy: str = "full", **fields):
    return [make_spec(label=label, strategy=strategy, seed=s, **fields) for s in range(3)]


def cell_row(label: str, scores: list[float], peak: int = 1, **record_fields):
    specs = three_seeds(label)
    pairs = zip(specs, scores, strict=True)
    records = [make_record(spec, score=s, peak=peak, **record_fields) for spec, s in pairs]
    return summary.rows(make_cells(specs), records)[0]


def test_mean_and_spread_equal_numpy():
    scores = [0.81, 0.83, 0.79]
    row = cell_row("full", scores)
    assert row.complete and row.n == 3 and row.metric == "accuracy"
    assert row.mean == pytest.approx(numpy.mean(scores))
    assert row.std == pytest.approx(numpy.std(scores, ddof=1))


def test_the_standard_error_is_the_mean_of_the_seeds_and_of_all_of_them():
    specs = three_seeds()
    scores = make_record().scores
    of_seeds = [dataclasses.replace(scores, stderr=error) for error in (0.01, 0.02, 0.06)]
    pairs = zip(specs, of_seeds, strict=True)
    records = [make_record(spec, scores=of_seed) for spec, of_seed in pairs]
    (row,) = summary.rows(make_cells(specs), records)
    assert row.stderr == pytest.approx(0.03)
    (row,) = summary.rows(make_cells(specs), [*records[:2], make_record(specs[2])])
    assert row.stderr is None, "an older record has none"


def test_one_seed_has_a_mean_and_no_spread():
    spec = make_spec()
    (row,) = summary.rows(make_cells([spec]), [make_record(spec, score=0.5)])
    assert (row.mean, row.std, row.n) == (0.5, None, 1)


def test_a_mean_is_blank_unless_every_seed_succeeded_and_the_reason_is_kept():
    specs = three_seeds()
    records = [make_record(specs[0]), make_failure(specs[1], "oom", "out of\nmemory: 3 GiB")]
    (row,) = summary.rows(make_cells(specs), records)
    assert (row.mean, row.std, row.n, row.complete) == (None, None, 1, False)
    assert row.so_far == records[0].scores.main
    assert [(p.run_id, p.status) for p in row.problems] == [
        (specs[1].run_id, "oom"),
        (specs[2].run_id, "missing"),
    ]
    assert row.problems[0].reason == "out of memory: 3 GiB"
    assert row.peak_bytes == 100 * 2**20, "costs are over the seeds that succeeded"


def test_costs_over_seeds():
    specs = three_seeds()
    records = []
    for spec, peak, ms, ratio in zip(
        specs, (5, 9, 7), (30.0, 10.0, 20.0), (0.2, 0.4, 0.3), strict=True
    ):
        record = make_record(spec, peak=peak)
        train = dataclasses.replace(record.train, step_ms_median=ms)
        params = dataclasses.replace(record.params, ratio_peak=ratio, ratio_mean=ratio / 2)
        records.append(dataclasses.replace(record, train=train, params=params))
    (row,) = summary.rows(make_cells(specs), records)
    assert (row.peak_bytes, row.step_ms, row.ratio_peak) == (9, 20.0, 0.4)
    assert row.ratio_mean == pytest.approx(0.15)
    assert row.memory_kind == "counted_cpu_tensors" and row.lr == 5e-5


@pytest.mark.parametrize("others", [0.5, None])
def test_a_step_time_beside_other_work_is_not_shown(others):
    specs = three_seeds()
    records = [make_record(spec) for spec in specs]
    busy = dataclasses.replace(records[1].train, others=others)
    records[1] = dataclasses.replace(records[1], train=busy)
    (row,) = summary.rows(make_cells(specs), records)
    assert row.step_ms is None and row.mean is not None


def test_the_peak_is_that_of_loading_where_a_model_needs_more_before_it_trains():
    (spec, *_) = three_seeds()
    record = make_record(spec, peak=7)
    for load_peak, peak in ((None, 7), (5, 7), (11, 11)):
        memory = dataclasses.replace(record.memory, load_peak=load_peak)
        cells = make_cells([spec])
        (row,) = summary.rows(cells, [dataclasses.replace(record, memory=memory)])
        assert row.peak_bytes == memory.peak == peak and memory.peak_allocated == 7


def test_printable_rows_share_their_keys_and_name_kind_and_source_of_the_numbers():
    specs = [*three_seeds(data="twin"), make_spec(label="hift")]
    table = summary.printable(
        summary.rows(make_cells(specs), [make_record(s, peak=3 * 2**20) for s in specs[:3]]),
        {("glue/sst2", "minilm", "full"): "best"},
        {("glue/sst2", "minilm", "full"): 0.5},
    )
    assert table[0].keys() == table[1].keys()
    assert (table[0]["data"], table[0]["memory"]) == ("twin", "counted_cpu_tensors")
    assert (table[0]["peak_mib"], table[0]["seeds"]) == (3.0, "3 of 3")
    assert (table[0]["verdict"], table[1]["verdict"]) == ("best", None)
    assert (table[0]["majority"], table[1]["majority"]) == (0.5, None)
    assert table[1]["mean"] is None and table[1]["problems"] == "1 missing: not run yet"


def test_lower_is_better_on_the_front_too():
    rows = [
        dataclasses.replace(cell_row(label, values, peak=peak), higher_is_better=False)
        for label, values, peak in (("a", [9.0, 9.1, 9.2], 10), ("b", [5.0, 5.1, 5.2], 20))
    ]
    assert summary.pareto_front(rows) == rows, "9.1 at 10 bytes, 5.1 at 20: neither beats the other"


def test_pareto_front_equals_its_definition():
    generator = numpy.random.default_rng(0)
    scores, peaks = generator.integers(0, 9, 40) / 10, generator.integers(1, 9, 40)
    rows = [
        cell_row(str(i), [score] * 3, peak=int(peak))
        for i, (score, peak) in enumerate(zip(scores, peaks, strict=True))
    ]

    def beaten(row):  # no worse on both, and better on one
        return any(
            other.peak_bytes <= row.peak_bytes
            and other.mean >= row.mean
            and (other.peak_bytes, other.mean) != (row.peak_bytes, row.mean)
            for other in rows
        )

    expected = {(row.peak_bytes, row.mean) for row in rows if not beaten(row)}
    front = summary.pareto_front(rows)
    assert [(r.peak_bytes, r.mean) for r in front] == sorted(expected)


def test_importing_it_loads_nothing_heavy():
    code = (
        "import sys, benchmark.analysis.summary, benchmark.report.page;"
        "heavy = ('torch', 'mlflow', 'pandas', 'matplotlib', 'jinja2');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
