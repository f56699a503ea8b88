"""Many runs: what is skipped, resumed and recorded, also where a process dies or a person stops it."""

import json
import os
import signal
import sys
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
from runs import TWO_CELLS, Watch, pretend, say

from benchmark.lifetime import stoppable
from benchmark.matrices import attempt, matrix, planning, runner
from benchmark.records import environment, record

FOUR_RUNS = TWO_CELLS.replace("max_length: 16", "max_length: 16, seeds: [0, 1]")


def test_what_is_done_is_not_run_again(go, in_process, results, planned):
    in_process(pretend())
    outcome, watch = go(FOUR_RUNS)
    assert (outcome.ran, outcome.failed, outcome.refused) == (4, 0, [])
    assert len(list(results.glob("*.json"))) == 4
    before = {p: p.stat().st_mtime_ns for p in results.glob("*.json")}
    outcome, watch = go(FOUR_RUNS)
    assert outcome.ran == 0 and watch.told == []
    assert {p: p.stat().st_mtime_ns for p in results.glob("*.json")} == before
    assert set(planned().values()) == {"done"}


def test_progress_and_tracker_hear_of_each_run_in_order(go, in_process):
    in_process(pretend())
    _, watch = go(TWO_CELLS)
    run_id = "glue-sst2_tiny-bert_full_s0"
    assert watch.told[:6] == [
        ("started", run_id, 40),
        ("start", run_id),
        ("stepped", 1),
        ("steps", 1),
        ("finish", run_id, "success"),
        ("finished", run_id, "success"),
    ]


def test_a_changed_spec_runs_again_and_the_old_record_is_kept(go, in_process, results, planned):
    in_process(pretend())
    go(TWO_CELLS)
    old = {p.name: p.read_text() for p in results.glob("*full*.json")}
    changed = TWO_CELLS.replace("batch_size: 4", "batch_size: 8")
    (results.parent.parent / "made_up.yaml").write_text(changed)
    assert sorted(planned().values()) == ["done", "stale"]
    outcome, _ = go(changed)
    assert outcome.ran == 1 and set(planned().values()) == {"done"}
    assert {p.name: p.read_text() for p in (results / "superseded").iterdir()} == old
    go(TWO_CELLS)
    assert len(list((results / "superseded").iterdir())) == 2, "nothing is ever lost"


def test_limit_counts_runs(go, in_process):
    in_process(pretend())
    assert [go(FOUR_RUNS, limit=n)[0].ran for n in (1, 2, 5, 1)] == [1, 2, 1, 0]


@pytest.mark.parametrize("status", ["oom", "diverged", "timeout", "failed", "interrupted"])
def test_what_did_not_succeed_is_a_state_and_is_tried_again(go, in_process, planned, status):
    """But for running out of memory and diverging, which would happen again: only a user who asks tries."""
    in_process(pretend(status=lambda spec: status))
    outcome, _ = go(TWO_CELLS)
    assert (outcome.ran, outcome.failed) == (2, 2)
    assert set(planned().values()) == {status}
    in_process(pretend())
    if status in ("oom", "diverged"):
        assert go(TWO_CELLS)[0].ran == 0
    outcome, _ = go(TWO_CELLS, settled=planning.RETRIED)
    assert (outcome.ran, outcome.failed) == (2, 0) and set(planned().values()) == {"done"}


def test_a_refused_run_is_recorded_with_its_reason_and_tried_again(
    go, in_process, results, planned
):
    in_process(say({"event": "refused", "error": "the data is bad"}, 2))
    outcome, watch = go(TWO_CELLS)
    assert outcome.refused == ["the data is bad"] * 2 and outcome.failed == 0
    kept = record.load_all(results)
    assert [(r.status, r.error) for r in kept] == [("refused", "the data is bad")] * 2
    assert watch.of("finished") == watch.of("finish") and set(planned().values()) == {"refused"}
    in_process(pretend())
    assert go(TWO_CELLS)[0].ran == 2 and set(planned().values()) == {"done"}


def test_what_cannot_work_is_recorded_once_and_no_failure(go, in_process, results, planned):
    in_process(say({"event": "unsupported", "error": "no such kernel"}, 3))
    outcome, _ = go(TWO_CELLS)
    assert (outcome.ran, outcome.failed, outcome.refused) == (2, 0, [])
    kept = record.load_all(results)
    assert [(r.status, r.error) for r in kept] == [("unsupported", "no such kernel")] * 2
    assert go(TWO_CELLS)[0].ran == 0 and set(planned().values()) == {"unsupported"}


def test_a_strategy_that_does_not_work_with_its_settings_is_recorded_without_a_process(
    go, in_process, results, planned
):
    in_process(pretend())
    refused = TWO_CELLS.replace("batch_size: 4", "batch_size: 4, precision: mixed_hi")
    outcome, _ = go(refused)
    assert outcome.ended == {"unsupported": 1, "trained": 1} and outcome.failed == 0
    statuses = {r.spec["strategy"]: (r.status, r.error) for r in record.load_all(results)}
    assert statuses["head"] == ("success", None)
    assert statuses["full"][0] == "unsupported"
    assert statuses["full"][1].startswith("strategy full has no precision mixed_hi")
    assert go(refused)[0].ran == 0 and sorted(planned().values()) == ["done", "unsupported"]


@pytest.mark.parametrize(
    ("module", "name", "elsewhere"),
    [
        (environment, "accelerators", lambda: ["NVIDIA H200", "/dev/nvidia0"]),
        (environment, "version", lambda name: "99" if name == "peft" else version(name)),
    ],
    ids=["a GPU", "another version of peft"],
)
def test_what_could_not_work_is_tried_again_where_it_may(
    go, in_process, results, planned, monkeypatch, module, name, elsewhere
):
    in_process(say({"event": "unsupported", "error": "no such kernel"}, 3))
    go(TWO_CELLS)
    with monkeypatch.context() as there:
        there.setattr(module, name, elsewhere)
        assert set(planned().values()) == {"stale"}
        assert go(TWO_CELLS)[0].ran == 2, "tried again"
        assert go(TWO_CELLS)[0].ran == 0, "and settled for there"
    assert go(TWO_CELLS)[0].ran == 2, "not for here"
    in_process(pretend())
    monkeypatch.setattr(module, name, elsewhere)
    assert go(TWO_CELLS)[0].ran == 2 and set(planned().values()) == {"done"}
    assert not (results / "superseded").exists()


def test_a_record_that_names_no_accelerators_settles_nothing(go, in_process, results, planned):
    in_process(pretend(status=lambda spec: "unsupported"))
    go(TWO_CELLS)
    assert "accelerators" not in record.load_all(results)[0].environment
    assert set(planned().values()) == {"stale"}


def test_what_a_library_prints_goes_to_the_log(go, in_process, results):
    def main():
        print('a native library says hello\n{"half": ')
        print("3")
        return pretend()()

    in_process(main)
    outcome, watch = go(TWO_CELLS)
    assert outcome.failed == 0 and watch.of("stepped") == [(1,), (1,)]
    log = results.parent / "_scratch" / "made_up" / "glue-sst2_tiny-bert_full_s0.log"
    assert "a native library says hello" in log.read_text()


BOTH_WAYS = pytest.mark.parametrize("warm", [True, False], ids=["fork", "interpreter"])


@BOTH_WAYS
@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        (
            "echo 'Traceback…' >&2; echo 'RuntimeError: boom' >&2; exit 1",
            "failed",
            "RuntimeError: boom; log: ",
        ),
        ("exit 7", "failed", "exit 7; log: "),
        ("printf '\\377\\376 not text' >&2; exit 1", "failed", "not text; log: "),
        ("kill -11 $$", "failed", "the process died of signal 11; log: "),
        ("kill -9 $$", "failed", "signal 9 (killed; out of host memory?); log: "),
        ("kill $$", "interrupted", "the process died of signal 15; log: "),
    ],
)
def test_a_process_that_ends_badly_is_a_failed_record_with_the_reason(
    go, executable, results, script, status, said, warm
):
    executable(script)
    outcome, watch = go(TWO_CELLS, warm=warm)
    assert (outcome.ran, outcome.failed) == (2, 2)
    for kept in record.load_all(results):
        assert kept.status == status and said in kept.error and "\n" not in kept.error
        assert kept.environment["packages"] and kept.code and kept.times.total_s >= 0
    assert [told for _, told in watch.of("finish")] == [status, status]


@BOTH_WAYS
def test_the_end_of_a_run_is_that_of_its_process_and_not_of_its_stdout(
    go, executable, results, warm, monkeypatch
):
    """One closes its stdout and hangs, so that its time ends it; one leaves a process that holds it open."""
    monkeypatch.setattr(attempt, "_LAST_LINES_S", 0.1)
    executable("exec >&-; exec sleep 60")
    assert go(TWO_CELLS, warm=warm, workers=2, limit_s=0.3)[0].failed == 2
    assert [kept.status for kept in record.load_all(results)] == ["timeout"] * 2
    executable("sleep 60 & echo $! >&2; exit 7")
    assert go(TWO_CELLS, warm=warm)[0].failed == 2
    for kept in record.load_all(results):
        log = Path(kept.error.partition("log: ")[2])
        assert log.is_file() and kept.status == "failed"
        os.kill(int(log.read_text()), signal.SIGKILL)


@BOTH_WAYS
@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGINT, "stopped by the user"), (signal.SIGTERM, "stopped by SIGTERM")],
)
def test_ctrl_c_and_sigterm_end_the_process_and_leave_an_interrupted_record(
    go, executable, results, tmp_path, planned, warm, number, said, monkeypatch
):
    """The run does not listen to SIGTERM, as one in a long operation. The runner need not load torch."""

    def stop(row):
        monkeypatch.setitem(sys.modules, "torch", None)
        os.kill(os.getpid(), number)

    event = json.dumps({"event": "step", "step": 1, "total": 9, "loss": 0.5})
    executable(f"trap '' TERM; echo $$ > {tmp_path}/pid; echo '{event}'; exec sleep 60")
    with stoppable(), pytest.raises(KeyboardInterrupt):
        go(TWO_CELLS, watch=Watch(stop), warm=warm)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    (kept,) = record.load_all(results)
    assert (kept.status, kept.error) == ("interrupted", said)
    assert sorted(planned().values()) == ["interrupted", "missing"]


def test_ctrl_c_keeps_the_record_of_an_earlier_spec(go, in_process, results):
    in_process(pretend())
    go(TWO_CELLS)
    old = record.load(results / "glue-sst2_tiny-bert_full_s0.json")

    def stopped():
        raise KeyboardInterrupt

    in_process(stopped)
    with pytest.raises(KeyboardInterrupt):
        go(TWO_CELLS.replace("batch_size: 4", "batch_size: 8"))
    assert record.load(results / "glue-sst2_tiny-bert_full_s0.json").status == "interrupted"
    assert record.load_all(results / "superseded") == [old]


def test_kept_weights_are_removed_once_no_run_goes_on_from_them(go, in_process, results, tmp_path):
    """The settings of a killed run were changed; the other run, whose rate is searched, may go on."""
    scratch = results.parent / "_scratch" / "made_up"
    text = TWO_CELLS.replace(
        "full: {lr: 1.0e-3", "full: {search: {lr: [1e-3, 2e-3], examples: 8}"
    ).replace("head: {lr: 1.0e-3", "head: {lr: 2.0e-3")
    (tmp_path / "made_up.yaml").write_text(text)
    full, head = matrix.load(tmp_path / "made_up.yaml").cells
    owned = {f"{spec.stem}.unfinished" for spec in [*full.trials(), *full.runs(0.7), *head.runs()]}
    for name in (*owned, f"{head.run_ids[0]}.0123456789ab.unfinished"):
        (scratch / name).mkdir(parents=True)
        (scratch / name / "weights.safetensors").write_text("large")
    in_process(say({"event": "refused", "error": "made up"}, 2))
    outcome, _ = go(text)
    assert [f.name for f in outcome.removed] == [f"{head.run_ids[0]}.0123456789ab.unfinished"]
    assert {path.name for path in scratch.glob("*.unfinished")} == owned
    in_process(pretend())
    assert not go(text)[0].removed
    assert {f.name for f in go(text)[0].removed} == owned, "all runs are done"


def test_steps_are_predicted_from_the_official_sizes():
    path = Path(runner.__file__).with_name("minilm_sst2.yaml")
    steps = {}
    for cell in matrix.load(path).cells:
        for spec in [*cell.trials(), *cell.runs(1e-3)]:
            steps.setdefault(cell.task, set()).add(planning.predicted_steps(spec))
    assert steps == {"glue/sst2": {1000}}  # batches of 16 that hold 16,000 rows


@pytest.mark.slow
def test_a_killed_run_is_recorded_the_matrix_goes_on_and_running_again_resumes(
    go, in_process, results, monkeypatch
):
    """With a real server and its forks: kill -9 in the middle of training."""

    def kill(row):
        if row["step"] == 3 and row["total"] == 40:
            (server,) = (
                p for p in psutil.Process().children() if "benchmark.run.warm" in p.cmdline()
            )
            (run,) = server.children()
            run.kill()

    outcome, watch = go(TWO_CELLS, watch=Watch(kill))
    assert (outcome.ran, outcome.failed) == (2, 1)
    killed, finished = record.load_all(results)
    assert killed.status == "failed" and "signal 9" in killed.error and killed.scores is None
    assert finished.status == "success" and finished.train.steps == 2
    assert not list(results.rglob("*.tmp"))
    assert 0 < finished.times.fixed_s < finished.times.total_s
    assert len(outcome.fixed_s) == 1
    in_process()
    outcome, watch = go(TWO_CELLS)
    assert (outcome.ran, outcome.failed) == (1, 0)
    assert [row for (row,) in watch.of("stepped")] == list(range(1, 41))
    assert [kept.status for kept in record.load_all(results)] == ["success", "success"]
    assert go(TWO_CELLS)[0].ran == 0
