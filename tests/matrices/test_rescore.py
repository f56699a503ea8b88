"""`hift-bench rescore`: the scores of stored predictions, again, and what it refuses."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from factories import make_record

import tasks.metrics
from benchmark.matrices import matrix
from benchmark.records import predictions, record

MATRIX = """\
name: made_up
defaults: {model: minilm, data: mirror, epochs: 1, lr: 1.0e-3, seeds: [0, 1]}
tasks: [glue/mrpc]
strategies: {full: {}}
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(write):
    """Two runs on record in the current folder: 3 and 2 of 4 right, ones among them."""
    write(MATRIX)
    folder = Path("results/made_up")
    runs = matrix.load(Path("m.yaml")).cells[0].runs()
    for spec, said in zip(runs, ([1, 1, 0, 0], [1, 0, 0, 0]), strict=True):
        right = [1, 1, 1, 0]
        hits = [float(a == b) for a, b in zip(said, right, strict=True)]
        scores = {"accuracy": sum(hits) / 4, "f1": 2 * sum(said) / (sum(said) + 3)}  # no false ones
        ids = [f"id{i}" for i in range(4)]
        kept = predictions.Predictions(ids=ids, predictions=said, references=right, scores=hits)
        predictions.write(folder / "predictions" / f"{spec.run_id}.jsonl", kept)
        made = make_record(spec, predictions=f"predictions/{spec.run_id}.jsonl")
        task = tasks.base.load(spec.task)
        made = dataclasses.replace(
            made,
            scores=dataclasses.replace(
                made.scores,
                main=scores[task.main_key],
                metric=task.main_key,
                metric_version=task.main_version,
                n=4,
                all=scores,
                stderr=np.std(hits, ddof=1).item() / 2,
            ),
        )
        record.write(made, folder / f"{spec.run_id}.json")
    return folder


def damaged(path, **scores):
    """Write other scores into a record; returns its bytes."""
    found = record.load(path)
    record.write(
        dataclasses.replace(found, scores=dataclasses.replace(found.scores, **scores)), path
    )
    return path.read_bytes()


def test_equal_scores_are_exit_0_and_nothing_is_written(cli, folder):
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}
    code, out, err = cli("rescore", "m.yaml", "--format", "json")
    rows = json.loads(out)
    assert (code, len(rows)) == (0, 8) and "0 of 2 runs would change" in err
    assert all(row["old"] == row["new"] and not row["differs"] for row in rows)
    cli("rescore", "m.yaml", "--write")
    after = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}
    assert before == after


def test_a_wrong_score_is_shown_and_written_only_when_asked(cli, folder):
    path = sorted(folder.glob("*.json"))[0]
    right = record.load(path)
    wrong = damaged(
        path, main=0.9, all={"accuracy": 0.9, "f1": right.scores.all["f1"]}, metric_version="a@0"
    )
    code, out, err = cli("rescore", "m.yaml", "--format", "json")
    assert code == 1 and "1 of 2" in err and path.read_bytes() == wrong
    differing = [row for row in json.loads(out) if row["differs"]]
    assert [(row["run_id"], row["score"], row["old"], row["new"]) for row in differing] == [
        (right.run_id, "main", 0.9, 0.75),
        (right.run_id, "accuracy", 0.9, 0.75),
    ]
    assert {row["version"] for row in differing} == {f"a@0 -> {right.scores.metric_version}"}
    code, again, err = cli("rescore", "m.yaml", "--format", "json", "--write")
    assert code == 0 and again == out and "1 of 2 records written" in err
    assert record.load(path) == right
    assert not (folder / "superseded").exists()
    assert cli("rescore", "m.yaml")[0] == 0


@pytest.mark.parametrize(
    ("scores", "differing"),
    [
        ({"main": 0.8, "metric": "f1"}, [("main", 0.8, 0.75)]),
        ({"higher_is_better": False}, []),
    ],
)
def test_another_main_score_than_the_task_has_now_is_a_change(cli, folder, scores, differing):
    path = sorted(folder.glob("*.json"))[0]
    right = record.load(path)
    damaged(path, **scores)
    code, out, err = cli("rescore", "m.yaml", "--format", "json")
    rows = [(r["score"], r["old"], r["new"]) for r in json.loads(out) if r["differs"]]
    assert (code, rows) == (1, differing) and "1 of 2" in err
    cli("rescore", "m.yaml", "--write")
    assert record.load(path) == right


@pytest.mark.parametrize("command", ["rescore", "status", "report"])
def test_a_main_score_that_was_edited_is_shown_by_none(folder, cli, command):
    path = sorted(folder.glob("*.json"))[0]
    path.write_text(path.read_text().replace('"main": 0.75', '"main": 0.99'))
    code, out, err = cli(command, "m.yaml")
    assert (
        code == 0
        and "0.99" not in out
        and err.startswith(
            f"{path}: scores.main: 0.99 is not all.accuracy, which is 0.75; its run counts as missing\n"
        )
    )


def test_a_metric_put_right_changes_the_score(cli, folder, monkeypatch):
    real = tasks.metrics.compute
    monkeypatch.setattr(
        tasks.metrics, "compute", lambda *a: {k: v / 2 for k, v in real(*a).items()}
    )
    code, out, _ = cli("rescore", "m.yaml", "--format", "csv")
    assert code == 1 and out.count("True") == 6


def test_a_record_from_before_standard_errors_gets_one_and_is_no_difference(cli, folder):
    path, stored = sorted(folder.glob("*.json"))[0], predictions_of(folder)
    right, lines = record.load(path), stored.read_bytes()
    damaged(path, stderr=None)
    kept = predictions.read(stored)
    predictions.write(stored, dataclasses.replace(kept, scores=None))
    assert cli("rescore", "m.yaml")[0] == 0
    _, _, err = cli("rescore", "m.yaml", "--write")
    assert "1 of 2 records written" in err
    assert record.load(path) == right and stored.read_bytes() == lines


def test_another_standard_error_is_a_difference(cli, folder):
    damaged(sorted(folder.glob("*.json"))[0], stderr=0.01)
    code, out, _ = cli("rescore", "m.yaml", "--format", "json")
    assert code == 1 and [row["score"] for row in json.loads(out) if row["differs"]] == ["stderr"]


def predictions_of(folder):
    return sorted((folder / "predictions").iterdir())[0]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_text(path.read_text()[:-3]), "line 4"),
        (lambda path: path.write_text(path.read_text().split("\n")[0] + "\n"), "1 predictions"),
        (lambda path: path.write_text('{"id": "a"}\n' * 4), "line 1"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "cannot be read"),
        (
            lambda path: path.write_text(path.read_text().replace('n": 0', 'n": "x"')),
            "cannot be scored",
        ),
    ],
)
def test_predictions_that_are_not_there_or_not_whole_are_named(folder, refused, damage, said):
    path = predictions_of(folder)
    damage(path)
    message = refused("rescore", "m.yaml")
    assert str(path) in message and said in message


def test_runs_that_are_not_done_are_left_out(cli, folder):
    sorted(folder.glob("*.json"))[0].unlink()
    code, out, err = cli("rescore", "m.yaml", "--format", "json")
    assert (code, len(json.loads(out))) == (0, 4) and "0 of 1" in err


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "results").glob("m*_*")))
def test_the_committed_records_score_as_they_did(cli, name):
    path = ROOT / "benchmark" / "matrices" / f"{name}.yaml"
    code, out, err = cli(
        "rescore", str(path), "--results", str(ROOT / "results"), "--format", "json"
    )
    assert code == 0 and " 0 of " in f" {err}"
    assert json.loads(out)
