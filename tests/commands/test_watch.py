"""Watching a matrix by its records."""

import io
import json
import os
from pathlib import Path

import pytest
from factories import make_failure, make_record
from rich.console import Console
from runs import TWO_CELLS

from benchmark.commands.watch import watch
from benchmark.matrices import matrix, planning, tally
from benchmark.records import record

FOUR = TWO_CELLS.replace("max_steps: 40", "seeds: [0, 1], max_steps: 40")
RESULTS = Path("results")


@pytest.fixture
def specs(write):
    write(FOUR)
    return [spec for cell in matrix.load(Path("m.yaml")).cells for spec in cell.runs()]


def end(spec, at, status="success"):
    """Write the record of a run that ended `at` so many seconds."""
    path = planning.path_of(spec, RESULTS)
    done = make_record(spec) if status == "success" else make_failure(spec, status, "made up")
    record.write(done, path)
    os.utime(path, (at, at))


def count():
    return tally.of(planning.plan(matrix.load(Path("m.yaml")), RESULTS), RESULTS)


def test_the_time_left_is_that_between_ends_for_each_run_left(specs):
    assert (count().left, count().seconds_left) == (4, None)
    for spec, at in zip(specs, (1000, 1600), strict=False):
        end(spec, at)
    assert (count().left, count().seconds_left) == (2, 1200)
    assert str(count()) == "2 of 4 done, 2 left, about 20 min"
    end(specs[2], 1700, "refused")
    end(specs[3], 1700, "interrupted")
    assert str(count()) == "2 of 4 done, 1 refused, 1 left, about 10 min"


def test_a_watch_shows_what_changes_and_ends_when_nothing_is_left(specs):
    left, out = list(specs), io.StringIO()

    def sleep(seconds):  # while the watch sleeps, a run ends, or none does
        assert seconds >= 2
        if sleep.number % 2:
            end(left.pop(0), 1000 + sleep.number)
        sleep.number += 1

    sleep.number = 0
    watch(matrix.load(Path("m.yaml")), RESULTS, Console(file=out), sleep)
    lines = out.getvalue().splitlines()
    assert [line.partition(",")[0] for line in lines] == [f"m: {n} of 4 done" for n in range(5)]
    assert lines[0].endswith("4 left") and lines[2].endswith("2 left, about 4 s")


def test_a_terminal_has_a_bar(specs):
    for spec in specs:
        end(spec, 1000)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    watch(matrix.load(Path("m.yaml")), RESULTS, console, sleep=lambda seconds: None)
    assert "━" in out.getvalue() and "4 of 4 done" in out.getvalue()


def test_status_watches_and_then_prints_the_table(specs, cli):
    for spec in specs:
        end(spec, 1000)
    code, out, err = cli("status", "m.yaml", "--watch", "--format", "json")
    assert code == 0 and err == "m: 4 of 4 done\n" and len(json.loads(out)) == 2
