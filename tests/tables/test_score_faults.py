"""Score tables from records that are not the matrix's own: the cell shows the fault, and no number."""

import dataclasses
import json

import pytest
from factories import make_failure, make_record
from score_records import TABLE

from benchmark.files import write_text
from benchmark.matrices import matrix
from benchmark.tables import definition, evidence, render


def faulty(results, why, verdict="fault"):
    """The planted cell shows the fault and no number, in every format; the others keep theirs."""
    rows, made = results.rows()
    row = rows["RoBERTa-base", "FT (125.0M)", "SST-2"]
    assert row["verdict"] == verdict
    assert why in row["why"]
    assert row["ours_mean"] is row["difference"] is None and row["n"] == 0
    (shown,) = [r for r in made.shown if (r["method"], r["column"]) == ("FT (125.0M)", "SST-2")]
    assert shown["ours, mean ± std (n)"] == shown["difference"] == "–"
    assert rows["RoBERTa-base", "LoRA (0.3M)", "SST-2"]["ours_mean"] == pytest.approx(70.1)


def test_a_missing_seed(results):
    results.file(results.spec(seed=1).run_id).unlink()
    faulty(results, "seeds missing: glue-sst2_roberta-base_full_s1")


def test_a_record_of_another_spec(results):
    spec = results.spec()
    other = spec.model_copy(update={"lr": 2e-5})
    results.put(make_record(other))
    faulty(results, "not the matrix's run: lr 2e-05, not 1e-05")
    results.put(dataclasses.replace(make_record(other), spec_hash=spec.hash))  # and dressed up
    faulty(results, "not the matrix's run: lr 2e-05, not 1e-05")


def test_a_record_with_another_hash(results):
    results.put(dataclasses.replace(make_record(results.spec()), spec_hash="0123456789ab"))
    faulty(results, "hash 0123456789ab")


def test_two_records_of_one_run(results):
    one = make_record(results.spec(), score=0.99)
    write_text(results.file("another_file"), one.to_json())
    faulty(results, "2 records have this run id")


def test_a_record_that_read_other_data_than_it_says(results):
    one = make_record(results.spec())
    inputs = dataclasses.replace(one.inputs, dataset_source="twin")
    results.put(dataclasses.replace(one, inputs=inputs))
    faulty(results, "read twin data, not hub")


def test_a_seed_scored_by_another_metric_version(results):
    one = make_record(results.spec())
    scores = dataclasses.replace(one.scores, metric_version="2")
    results.put(dataclasses.replace(one, scores=scores))
    faulty(results, "differ in metric")


def test_a_run_without_training_is_the_matrixs_own(tmp_path):
    """The fields of a training, which such a record has by default alone, are no disagreement."""
    table = definition.load("opt13b-superglue")
    cell = evidence.gather(table.matrix, tmp_path).cell(
        task="mezo/rte", model="opt-13b", label="zero_shot"
    )
    (spec,) = cell.runs()
    one = make_record(spec, score=0.6)
    for given, why in ((one, None), (make_record(spec, spec_hash="0" * 12), "hash 0000")):
        write_text(tmp_path / table.matrix / "one.json", given.to_json())
        (row,) = [
            r
            for r in render.render(table, tmp_path).rows
            if (r["method"], r["column"]) == ("Zero-shot", "RTE")
        ]
        assert row["ours_mean"] == (None if why else pytest.approx(60.0))
        assert row["verdict"] == ("fault" if why else "within")
        assert (why or "") in (row["why"] or "")


def test_success_without_a_score(results):
    results.put(dataclasses.replace(make_record(results.spec()), scores=None))
    faulty(results, "without a score")


def test_success_without_what_it_read(results):
    results.put(dataclasses.replace(make_record(results.spec()), inputs=None))
    faulty(results, "recorded without what it read: glue-sst2_roberta-base_full_s0")


@pytest.mark.parametrize("which", ["dataset_revision", "model_revision"])
def test_a_seed_that_read_another_revision(results, which):
    one = make_record(results.spec())
    inputs = dataclasses.replace(one.inputs, **{which: "another"})
    results.put(dataclasses.replace(one, inputs=inputs))
    faulty(results, "differ in the revision of data or model")


@pytest.mark.parametrize(
    ("status", "verdict"),
    [("oom", "cannot run here"), ("unsupported", "cannot run here"), ("diverged", "fault")],
)
def test_what_did_not_succeed_says_so(results, status, verdict):
    results.put(make_failure(results.spec(), status, "it said why"))
    faulty(results, f"{status}: it said why", verdict)


def test_a_mixed_source_takes_every_number_of_the_table(results):
    text = results.path.read_text().replace(
        "[glue/sst2, glue/rte]", "{glue/sst2: {}, glue/rte: {data: twin}}"
    )
    results.path.write_text(text)
    for spec in results.specs():
        results.put(make_record(spec))
    rows, _ = results.rows()
    run = [rows["RoBERTa-base", "FT (125.0M)", column] for column in ("SST-2", "RTE")]
    assert {row["verdict"] for row in run} == {"fault"}
    assert {row["why"] for row in run} == {
        "data sources are mixed in this table: hub (9 records), twin (9 records)"
    }
    assert {row["ours_mean"] for row in rows.values()} == {None}


def test_twin_data_where_real_data_is_meant(results):
    results.path.write_text(results.path.read_text().replace("data: hub", "data: twin"))
    for spec in results.specs():
        results.put(make_record(spec))
    rows, _ = results.rows()
    assert {row["ours_mean"] for row in rows.values()} == {None}
    assert results.cell()["why"] == "twin data, where the real data is meant"


def test_a_random_twin_model_where_a_real_one_is_meant(results):
    one = make_record(results.spec())
    inputs = dataclasses.replace(one.inputs, model_source="twin")
    results.put(dataclasses.replace(one, inputs=inputs))
    rows, _ = results.rows()
    assert {row["ours_mean"] for row in rows.values()} == {None}
    assert "a random twin model" in results.cell()["why"]


def test_a_record_of_no_cell_is_named_and_not_used(results, cli):
    stray = results.spec().model_copy(update={"seed": 7})
    results.put(make_record(stray, score=0.0))
    rows, made = results.rows()
    assert rows["RoBERTa-base", "FT (125.0M)", "SST-2"]["n"] == 3
    assert any("not used: glue-sst2_roberta-base_full_s7" in note for note in made.notes)
    code, out, err = cli("tables", TABLE.id, "--results", str(results.root), "--format", "json")
    assert code == 0 and json.loads(out) == made.rows
    assert "not used: glue-sst2_roberta-base_full_s7" in err


def test_a_searched_rate_needs_its_trials(results):
    text = results.path.read_text()
    results.path.write_text(
        text.replace("lr: 1.0e-5", "search: {lr: [1.0e-5, 2.0e-5], examples: 50}")
    )
    cells = matrix.load(results.path).cells
    for cell in cells:
        for spec in cell.runs(2e-5):
            results.put(make_record(spec, score=0.9))
    assert "trials are not all on record" in results.cell()["why"]
    for cell in cells:
        for trial in cell.trials():
            path = results.root / "glue_roberta" / "search" / f"{trial.run_id}.json"
            write_text(path, make_record(trial, score=0.5 + trial.lr).to_json())
    assert results.cell()["ours_mean"] == pytest.approx(90.0)
    for cell in cells:  # the other rate wins: what is on record is not the matrix's run any more
        for trial in cell.trials():
            path = results.root / "glue_roberta" / "search" / f"{trial.run_id}.json"
            write_text(path, make_record(trial, score=0.5 - trial.lr).to_json())
    assert "lr 2e-05, not 1e-05" in results.cell()["why"]


def test_a_record_of_another_schema_version_is_named_and_not_shown(results):
    path = results.file(results.spec().run_id)
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"schema_version": 99}))
    (line,) = (note for note in results.rows()[1].notes if "schema_version" in note)
    assert line.startswith(f"{path}: schema_version: 99 is not 1") and "counts as missing" in line
    assert results.cell()["why"].startswith("seeds missing: ")
