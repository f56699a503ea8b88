"""Watching a matrix by its records, how far a call of `run` is, and the note when it ends."""

import io
import json
import os
from pathlib import Path

import pytest
from factories import make_failure, make_record, make_spec
from rich.console import Console
from runs import TWO_CELLS, Watch, pretend
from servers import closed_port, serving

from benchmark.commands import notice
from benchmark.commands.overall import Overall
from benchmark.commands.watch import watch
from benchmark.errors import UserError
from benchmark.matrices import matrix, planning, tally
from benchmark.records import record
from benchmark.tracking import tracker

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


def test_the_counts_of_a_call_and_the_time_it_takes_at_this_pace():
    now = [0.0]
    far = Overall(4, clock=lambda: now[0])
    assert str(far) == "4 left"
    specs = [make_spec(seed=seed) for seed in range(5)]
    far.started()
    far.started()
    assert str(far) == "2 running, 2 left"
    now[0] = 600.0
    far.finished(make_record(specs[0]))
    far.finished(make_failure(specs[1], "refused", "made up"))
    far.started()
    assert str(far) == "1 trained, 1 refused, 1 running, 1 left, about 10 min"
    for _ in range(2):  # one more than was expected, as a search adds trials
        far.started()
    assert (far.ended, far.total) == (2, 5)
    for spec in specs[2:]:
        far.finished(make_record(spec))
    assert str(far) == "4 trained, 1 refused"


def posted():
    """A server that takes notes; the context yields its address and the requests."""
    requests = []

    def take(connection, released):
        text = connection.recv(1 << 16).decode()
        while "\r\n\r\n" not in text or not text.partition("\r\n\r\n")[2]:
            text += connection.recv(1 << 16).decode()
        requests.append(text)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    return requests, serving(take)


def test_a_webhook_gets_the_end_of_a_matrix():
    requests, server = posted()
    with server as (uri, _):
        with notice.at_end(f"{uri}/hook", "m") as note:
            note("3 trained, 1 refused")
        with pytest.raises(OSError), notice.at_end(f"{uri}/hook", "m"):
            raise OSError("no space left")
    heads, bodies = zip(*(request.split("\r\n\r\n", 1) for request in requests), strict=True)
    assert all(head.startswith("POST /hook ") for head in heads)
    assert [json.loads(body)["text"] for body in bodies] == [
        "hift-bench: m: 3 trained, 1 refused",
        "hift-bench: m: ended by OSError no space left",
    ]


def test_a_bell_rings_and_a_note_that_is_lost_is_one_line(capsys):
    with notice.at_end("bell", "m") as note:
        note("1 trained")
    assert capsys.readouterr().err == "\a"
    with notice.at_end(f"http://127.0.0.1:{closed_port()}", "m") as note:
        note("1 trained")
    (line,) = capsys.readouterr().err.splitlines()
    assert "was not sent: " in line
    with notice.at_end(None, "m") as note:
        note("1 trained")
    assert capsys.readouterr().err == ""


def test_a_note_to_nowhere_is_refused():
    for to in ("bel", "ftp://x", "hooks.example.org"):
        with pytest.raises(UserError, match='neither "bell" nor'):
            notice.check(to)
    for to in (None, "bell", "https://hooks.example.org/1"):
        notice.check(to)


def test_run_tells_the_webhook_its_closing_line(write, cli, in_process, undrawn, monkeypatch):
    in_process(pretend())
    write(TWO_CELLS)
    monkeypatch.setattr(tracker, "Tracker", lambda *_: Watch())
    code, _, err = cli("run", "m.yaml", "--notify", "bel")
    assert code == 2 and not RESULTS.exists()
    requests, server = posted()
    with server as (uri, _):
        code, _, err = cli("run", "m.yaml", "--notify", uri)
    assert code == 0 and "; 1 trained, 1 left, about " in err and "; 2 trained\n" in err
    (request,) = requests
    assert json.loads(request.split("\r\n\r\n", 1)[1])["text"] == "hift-bench: m: 2 trained"
