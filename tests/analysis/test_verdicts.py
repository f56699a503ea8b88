"""Verdicts from records and predictions: strategies that are best, not separable, worse, or not tested."""

import dataclasses
import gc
from collections import Counter

import numpy as np
import pytest
from factories import make_cells, make_failure, make_record, make_spec, write_answers

from benchmark.analysis import summary, verdicts
from benchmark.records import predictions

REFERENCES = [int(i % 3 > 0) for i in range(300)]


def answers(rate, seed):
    """Whether each answer is right (0 or 1), by difficulty of the example and an effect of the seed."""
    difficulty = np.random.default_rng(0).normal(0, 1, 300)
    return difficulty + np.random.default_rng(seed).normal(0, 0.5, 300) < rate


def run(folder, label, rate, seed, references=REFERENCES, **fields):
    spec = make_spec(label=label, seed=seed, **fields)
    luck = 100 * seed + sum(map(ord, label))
    return write_answers(folder, make_record(spec), answers(rate, luck), references)


@pytest.fixture
def records(tmp_path):
    """Records of two equally good strategies and a worse one, with three seeds each."""
    rates = {"full": 1.5, "lora": 1.5, "head": 0.2}
    return [run(tmp_path, label, rate, s) for label, rate in rates.items() for s in range(3)]


def judge(records, folder, cells=None):
    cells = cells or make_cells([spec_of(record) for record in records])
    return verdicts.judge(cells, summary.rows(cells, records), records, folder)


def spec_of(record):
    return make_spec(**{k: v for k, v in record.spec.items() if k in ("task", "label", "seed")})


def test_the_best_and_what_is_not_separable_from_it_are_strong(tmp_path, records):
    (verdict,) = judge(records, tmp_path)
    assert set(verdict.best) == {"full", "lora"} == verdict.strong and verdict.worse == ["head"]
    assert verdicts.words([verdict]) == {
        ("glue/sst2", "minilm", "full"): "not separable from the best",
        ("glue/sst2", "minilm", "lora"): "not separable from the best",
        ("glue/sst2", "minilm", "head"): "worse than the best",
    }
    assert len(verdict.pairs) == 3 and verdict.models.keys() == verdict.pairs.keys()
    assert all(len(ps) == 3 for ps in verdict.models.values()) and verdict.right_or_wrong


def test_nothing_is_strong_where_nothing_is_worse(tmp_path, records):
    (verdict,) = judge(records[:6], tmp_path)
    assert set(verdict.best) == {"full", "lora"} and verdict.strong == set()
    assert verdicts.words([verdict]) == {}


def test_where_lower_is_better_the_lowest_is_best(tmp_path, records):
    lower = [
        dataclasses.replace(r, scores=dataclasses.replace(r.scores, higher_is_better=False))
        for r in records
    ]
    (verdict,) = judge(lower, tmp_path)
    assert verdict.best == ["head"] and set(verdict.worse) == {"full", "lora"}


def test_one_seed_is_not_ranked_and_its_models_are_tested(tmp_path, records):
    one = run(tmp_path, "zero", 2.5, 0)
    (verdict,) = judge([*records, one], tmp_path)
    assert verdict.strong == {"full", "lora"} and "one seed" in verdict.untested["zero"]
    assert verdict.pairs["zero", "full"].p is None and len(verdict.models["zero", "full"]) == 1


def test_a_strategy_that_lacks_a_seed_is_left_out(tmp_path, records):
    failed = make_failure(make_spec(label="head", seed=2), "oom", "no memory")
    cells = make_cells([spec_of(record) for record in records])
    (verdict,) = judge([*records[:8], failed], tmp_path, cells)
    assert list(verdict.pairs) in ([("full", "lora")], [("lora", "full")])
    assert verdict.untested == {}, "its cell says why"


def without_scores(path):
    predictions.write(path, dataclasses.replace(predictions.read(path), scores=None))


def of_other_examples(path):
    table = predictions.read(path)
    predictions.write(path, dataclasses.replace(table, ids=table.ids[::-1]))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (without_scores, "no scores of single examples (hift-bench rescore --write adds them)"),
        (of_other_examples, "scored on other examples"),
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_text(path.read_text()[:-9]), "line 300"),
    ],
)
def test_predictions_that_cannot_be_compared_are_named_and_the_rest_is(
    tmp_path, records, damage, reason
):
    damage(tmp_path / records[4].predictions)
    (verdict,) = judge(records, tmp_path)
    assert verdict.untested.keys() == {"lora"} and reason in verdict.untested["lora"]
    assert str(tmp_path) not in verdict.untested["lora"], "a report is not of one machine"
    assert verdict.best == ["full"] and verdict.worse == ["head"]


def test_another_version_of_the_metric_is_not_compared(tmp_path, records):
    scores = dataclasses.replace(records[8].scores, metric_version="accuracy@2")
    records[8] = dataclasses.replace(records[8], scores=scores)
    (verdict,) = judge(records, tmp_path)
    assert "another version of the metric" in verdict.untested["head"]


def test_records_that_name_no_predictions_are_not_compared(tmp_path):
    (verdict,) = judge([make_record(make_spec(seed=seed)) for seed in range(2)], tmp_path)
    assert (verdict.pairs, verdict.best, verdict.majority) == ({}, [], None)
    assert "names no predictions" in verdict.untested["full"]


def test_the_majority_class_is_a_predictor_to_beat(tmp_path):
    """200 of 300 examples have class 1. One strategy always predicts it, the other learns."""
    always = [
        write_answers(
            tmp_path, make_record(make_spec(label="always", seed=s)), REFERENCES, REFERENCES
        )
        for s in range(3)
    ]
    good = [run(tmp_path, "good", 1.5, s) for s in range(3)]
    (verdict,) = judge([*always, *good], tmp_path)
    assert verdict.majority.accuracy == pytest.approx(2 / 3)
    of_always, of_good = (verdict.majority.more[label] for label in ("always", "good"))
    assert (of_always.mean, of_always.p, verdict.majority.models["always"]) == (0, 1, [1.0] * 3)
    assert of_good.separable and of_good.mean == pytest.approx(
        np.mean([record.scores.main for record in good]) - 2 / 3
    )
    assert max(verdict.majority.models["good"]) < 0.001


def test_no_majority_class_where_the_metric_is_no_accuracy_over_classes(tmp_path, records):
    version = [
        dataclasses.replace(r, scores=dataclasses.replace(r.scores, metric_version="gsm8k@2"))
        for r in records
    ]
    (verdict,) = judge(version, tmp_path)
    assert verdict.majority is None and verdict.pairs


def test_of_many_strategies_the_pairs_with_the_best_are_shown(tmp_path, monkeypatch, records):
    monkeypatch.setattr(verdicts, "MOST_PAIRS", 2)
    (verdict,) = judge(records, tmp_path)
    assert len(verdict.pairs) == 3
    assert [verdict.best[0] in pair for pair in verdict.models] == [True, True]


def test_each_file_is_read_once_and_tasks_are_judged_apart(tmp_path, records, monkeypatch):
    records += [run(tmp_path, label, 1.0, s, task="glue/rte") for label in "ab" for s in range(3)]
    read, opened = predictions.read, Counter()

    def counting(path):
        opened[path.name] += 1
        return read(path)

    monkeypatch.setattr(predictions, "read", counting)
    judged = judge(records, tmp_path)
    assert [of.task for of in judged] == ["glue/sst2", "glue/rte"]
    assert opened == Counter(f"{record.run_id}.jsonl" for record in records)


def test_what_a_caller_froze_stays_frozen(tmp_path, records):
    gc.freeze()
    judge(records, tmp_path)
    assert gc.get_freeze_count() > 0
