"""How `hift-bench run` ends: the line that counts every run once and says what to do, and the exit code."""

import json
import sys
from pathlib import Path

import pytest
from factories import make_failure, make_record
from runs import FAILING, TWO_CELLS, pretend, say

from benchmark.matrices import claims, matrix, runner
from benchmark.records import record

SEEDS = TWO_CELLS.replace("max_length: 16", "max_length: 16, seeds: [0, 1]")
SEARCH = TWO_CELLS.replace(
    "full: {lr: 1.0e-3, ", "full: {search: {lr: [1e-3, 2e-3], examples: 20}, "
)
AGAIN = "the same command tries again what failed"
RETRY = "--retry repeats what ran out of memory or diverged"


def ends_by(run_of):
    """The main() of a run that takes the one `run_of` names for its spec's strategy and seed."""

    def main():
        spec = json.loads(Path(sys.argv[1]).read_text())
        return run_of[spec["strategy"], spec["seed"]]()

    return main


@pytest.fixture
def closing(cli, here, untracked):
    """Run the matrix; returns the exit code and the closing line."""

    def closing(*options):
        code, _, err = cli("run", "m.yaml", *options)
        lines = err.split("\nfixed cost")[0].split("\nreport:")[0].splitlines()
        closing.said = err
        return code, lines[-1]

    return closing


def test_the_closing_line_counts_every_run_once(closing, in_process):
    Path("m.yaml").write_text(SEEDS)
    in_process(pretend())
    assert closing("--limit", "1") == (0, "1 trained, 3 left")
    in_process(
        ends_by(
            {
                ("full", 1): FAILING,
                ("head", 0): say({"event": "unsupported", "error": "no such kernel"}, 3),
                ("head", 1): pretend(status=lambda spec: "oom"),
            }
        )
    )
    counts = "1 oom, 1 refused, 1 unsupported, 1 already done"
    assert closing() == (2, f"{counts}; mend what was refused; {RETRY}")
    in_process(pretend())
    counts = "1 trained, 1 unsupported, 1 already done, 1 oom before"
    assert closing() == (1, f"{counts}; {RETRY}"), "as the last time: it has no result"
    assert closing("--retry") == (0, "1 trained, 1 unsupported, 2 already done")
    assert closing() == (0, "1 unsupported, 3 already done")
    in_process(pretend(status=lambda spec: "failed"))
    Path("m.yaml").write_text(SEEDS.replace("batch_size: 4", "batch_size: 8"))
    assert closing() == (1, f"2 failed, 1 unsupported, 1 already done; {AGAIN}")


def test_of_runs_that_train_nothing(closing, in_process):
    prompts = TWO_CELLS.replace("glue/sst2", "mezo/sst2").replace("tiny-bert", "tiny-gpt2")
    Path("m.yaml").write_text(prompts.replace("head: {lr: 1.0e-3, max_steps: 2}", "none: {}"))
    in_process(pretend())
    assert closing() == (0, "1 trained, 1 evaluated")


def test_a_trial_that_diverges_is_what_a_search_is_for_unless_all_do(closing, in_process):
    Path("m.yaml").write_text(SEARCH)
    in_process(pretend(status=lambda spec: "diverged" if spec.is_trial else "success"))
    said = "search other learning rates where every one failed"
    assert closing() == (1, f"1 trained, 2 diverged, 1 left; {said}")
    in_process(pretend(status=lambda spec: "diverged" if spec.lr == 2e-3 else "success"))
    assert closing("--retry") == (0, "2 trained, 1 diverged, 1 already done")
    assert closing() == (0, "3 already done, 1 diverged before")


ELSEWHERE = {
    "failed": (1, f"1 failed in other runners; {AGAIN}", "failed in another runner: made up"),
    "refused": (2, "1 refused in other runners; mend what was refused", "refused in another"),
    "oom": (1, f"1 failed in other runners; {RETRY}", "oom in another runner: made up"),
    "success": (0, "1 done by other runners", ""),
}


@pytest.mark.parametrize("status", ELSEWHERE)
def test_what_another_runner_holds_counts_by_how_it_ends_there(
    closing, in_process, monkeypatch, status
):
    """The run is locked while this runner makes the other three; then it ends with `status`."""
    monkeypatch.setattr(runner, "LOOK_S", 0.01)
    Path("m.yaml").write_text(SEEDS)
    spec = matrix.load(Path("m.yaml")).cells[0].runs()[0]
    scratch = Path("results/_scratch/m")
    scratch.mkdir(parents=True)
    held, made, pretended = claims.take(scratch / f"{spec.run_id}.lock"), [], pretend()

    def main():
        code = pretended()
        made.append(code)
        if len(made) == 3:
            path = Path("results/m") / f"{spec.run_id}.json"
            done = (
                make_record(spec) if status == "success" else make_failure(spec, status, "made up")
            )
            record.write(done, path)
            held.release()
        return code

    in_process(main)
    code, line, reason = ELSEWHERE[status]
    code_there, line_there = closing()
    assert f"3 trained, {line}" in closing.said and reason in closing.said
    assert code_there == code and len(made) == 3, line_there


def test_only_what_was_asked_for_decides_the_exit_code(closing, in_process):
    """Runs beyond the limit and of other parts of the matrix have failed before."""
    Path("m.yaml").write_text(SEEDS)
    in_process(pretend(status=lambda spec: "failed"))
    assert closing()[0] == 1
    in_process(pretend(status=lambda spec: "failed" if spec.strategy == "head" else "success"))
    assert closing("--limit", "1") == (0, "1 trained, 3 left")
    code, line = closing("--shard", "2/2")
    assert (code, line) == (1, f"1 trained, 1 failed, 1 already done, 1 left; {AGAIN}")
