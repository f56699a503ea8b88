"""The hours of a matrix: by hand from made-up records, and from a few steps of real runs."""

import dataclasses
import textwrap

import pytest
from factories import make_record

from benchmark.matrices import hours, matrix, planning
from benchmark.records import environment, record

MATRIX = """
    name: mine
    defaults: {model: tiny-bert, data: twin, max_steps: 100, seeds: [0, 1, 2], eval_examples: 50}
    tasks: [glue/sst2]
    strategies:
      full: {lr: 1.0e-3}
      hift: {search: {lr: [1.0e-3, 2.0e-3], seeds: [0], examples: 20}}
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(textwrap.dedent(MATRIX))
    return matrix.load(path)


def put(planned, results, *, machine=None, fixed_s=6.0, **train):
    """A record of the run: 60 s in all, by default 40 of them for 20 steps, 14 to score 872 examples."""
    made = make_record(planned.spec)
    here = machine or environment.machine()
    times = dataclasses.replace(made.times, fixed_s=fixed_s)
    train = dataclasses.replace(made.train, **train)
    made = dataclasses.replace(made, environment=here, times=times, train=train)
    record.write(made, planning.path_of(planned.spec, results))


def test_records_of_this_machine_tell_what_the_others_of_a_cell_take(mine, tmp_path):
    first, second, _, *trials_and_runs = planning.plan(mine, tmp_path)
    put(first, tmp_path)
    put(second, tmp_path, steps=20, seconds=44.0)  # 10 s to score 872
    put(trials_and_runs[0], tmp_path, steps=10, seconds=20.0)  # a trial: 34 s to score 872
    planned = planning.plan(mine, tmp_path)
    paces = hours.recorded(planned)
    expected = hours.expected(planned, paces)
    full = 6 + 100 * (2.0 + 2.2) / 2 + 50 * (14 + 10) / 2 / 872
    trial = 6 + 100 * 2.0 + 20 * 34 / 872
    assert expected.seconds == pytest.approx(full + trial)
    assert (expected.known, expected.unknown) == (2, 3)
    assert str(expected) == (
        "about 7 min, one run at a time; 3 more runs were not timed on this machine"
    )


@pytest.mark.parametrize(
    "changed", [{"machine": {**environment.machine(), "cpu": "another"}}, {"fixed_s": None}]
)
def test_a_record_that_says_nothing_of_this_machine_is_not_asked(mine, tmp_path, changed):
    put(planning.plan(mine, tmp_path)[0], tmp_path, **changed)
    planned = planning.plan(mine, tmp_path)
    assert hours.recorded(planned) == {}
    assert str(hours.expected(planned, {})) == "7 runs were not timed on this machine"


def test_a_calibration_runs_each_kind_once_and_leaves_nothing(mine, tmp_path, in_process, cli):
    in_process()
    planned = planning.plan(mine, tmp_path / "results")
    code, out, err = cli(
        "plan", str(mine.path), "--results", str(tmp_path / "results"), "--calibrate"
    )
    assert code == 0 and "[3/3]" in err and "3 trained" in err, "full, a trial of hift, and hift"
    assert "one run at a time" in out + err and "--calibrate" not in out + err
    assert not (tmp_path / "results").exists()
    assert [p.state for p in planning.plan(mine, tmp_path / "results")] == [
        p.state for p in planned
    ]
