"""Learning-rate search: trials of equal budget on held-out rows, then the runs at the best rate."""

import dataclasses
import math

import pytest
from pydantic import ValidationError
from runs import TWO_CELLS, pretend

from benchmark.matrices.search import Outcome, Search, chosen, outcome, tried
from benchmark.records import record

SEARCH = TWO_CELLS.replace(
    "full: {lr: 1.0e-3, ", "full: {search: {lr: [1e-3, 2e-3, 4e-3], examples: 20}, "
)


def test_the_trials_of_a_search_come_along_with_the_limit(go, in_process, results, planned):
    in_process(pretend())
    outcome, watch = go(SEARCH, limit=1)
    assert outcome.ran == 4
    started = [run_id for run_id, _ in watch.of("started")]
    assert [run_id.endswith(("lr0.001", "lr0.002", "lr0.004")) for run_id in started] == (
        [True] * 3 + [False]
    )
    assert len(list((results / "search").glob("*.json"))) == 3
    assert sorted(planned().values()) == ["done"] * 4 + ["missing"]


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ({1e-3: 0.5, 2e-3: 0.9, 4e-3: 0.7}, 2e-3),
        ({1e-3: 0.5, 2e-3: 0.9, 4e-3: 0.9}, 2e-3),  # the first listed on a tie
        ({1e-3: None, 2e-3: 0.1, 4e-3: None}, 2e-3),  # a rate that failed is no choice
    ],
)
def test_the_runs_use_the_rate_that_scored_best_on_held_out_rows(
    go, in_process, results, scores, best
):
    in_process(
        pretend(
            score=lambda spec: scores[spec.lr] or 0.0 if spec.is_trial else 0.3,
            status=lambda spec: (
                "diverged" if spec.is_trial and scores[spec.lr] is None else "success"
            ),
        )
    )
    go(SEARCH)
    assert record.load(results / "glue-sst2_tiny-bert_full_s0.json").spec["lr"] == best
    trials = [record.load(p).spec for p in (results / "search").glob("*.json")]
    assert {t["score_on"] for t in trials} == {"dev"} and len(trials) == 3


def test_a_cell_whose_every_rate_failed_is_a_failed_cell_and_the_rest_goes_on(
    go, in_process, results, planned
):
    in_process(pretend(status=lambda spec: "diverged" if spec.is_trial else "success"))
    outcome, _ = go(SEARCH)
    assert outcome.refused == [] and outcome.failed >= 3
    assert (results / "glue-sst2_tiny-bert_head_s0.json").exists()
    assert not (results / "glue-sst2_tiny-bert_full_s0.json").exists()
    assert planned()["glue-sst2_tiny-bert_full_s0"] == "failed"


def test_runs_wait_for_their_search_in_the_plan(go, in_process, planned, tmp_path):
    (tmp_path / "made_up.yaml").write_text(SEARCH)
    assert planned() == {
        "glue-sst2_tiny-bert_full_s0_lr0.001": "missing",
        "glue-sst2_tiny-bert_full_s0_lr0.002": "missing",
        "glue-sst2_tiny-bert_full_s0_lr0.004": "missing",
        "glue-sst2_tiny-bert_full_s0": "waiting",
        "glue-sst2_tiny-bert_head_s0": "missing",
    }


GRID = (1e-3, 2e-3, 4e-3)


def search(**fields):
    return Search(**{"lr": GRID, "examples": 20} | fields)


def walked(peak, **fields):
    """The rates tried where the score falls on both sides of the rate `peak`."""
    return tried(search(**fields), lambda rate: Outcome(-abs(rate - peak)))


@pytest.mark.parametrize(
    ("peak", "extend", "expected"),
    [
        (2e-3, 3, []),  # the best is interior
        (4e-3, 0, []),
        (8e-3, 3, [8e-3, 16e-3]),  # one beyond the best shows that it is
        (1.6e-2, 1, [8e-3]),
        (2.5e-4, 9, [5e-4, 2.5e-4, 1.25e-4]),
    ],
)
def test_a_grid_grows_by_its_own_factor_until_the_best_is_interior(peak, extend, expected):
    assert walked(peak, extend=extend) == [*GRID, *expected]


def test_a_rate_that_fails_is_an_edge_that_need_not_be_passed():
    def failing(rate):
        return Outcome(None if rate > 3e-3 else rate)

    assert tried(search(extend=3), failing) == list(GRID)
    assert tried(search(extend=3), lambda rate: Outcome(None)) == list(GRID)
    assert tried(search(extend=3), lambda rate: None) == list(GRID), "the grid has to run first"


def test_the_lowest_rate_within_one_standard_error_of_the_best():
    found = {1e-3: Outcome(0.80, 0.02), 2e-3: Outcome(0.83, 0.001), 4e-3: Outcome(0.85, 0.03)}
    assert chosen(search(), found) == 4e-3
    assert chosen(search(choose="lowest_within_error"), found) == 2e-3
    found[4e-3] = dataclasses.replace(found[4e-3], error=None)
    assert chosen(search(choose="lowest_within_error"), found) == 4e-3
    assert chosen(search(), dict.fromkeys(GRID, Outcome(None))) is None


def test_a_rates_outcome_is_the_mean_over_seeds_and_its_error():
    assert outcome([0.5, 0.7], [0.03, 0.04]) == Outcome(pytest.approx(0.6), pytest.approx(0.025))
    assert outcome([0.5, 0.7], [0.03, None]) == Outcome(pytest.approx(0.6), None)
    assert outcome([0.5, None], [0.03, 0.04]) == Outcome(None)


WIDER = SEARCH.replace("examples: 20}", "examples: 20, seeds: [3, 4], extend: 2}")


def test_further_trials_run_within_the_same_call_and_the_best_over_seeds_is_taken(
    go, in_process, results, planned
):
    scores = {1e-3: (0.9, 0.1), 2e-3: (0.6, 0.6), 4e-3: (0.7, 0.6), 8e-3: (0.5, 0.5)}
    in_process(pretend(lambda s: scores[s.lr][s.seed - 3] if s.is_trial else 0.3))
    outcome, watch = go(WIDER)
    started = [run_id.rpartition("_full_")[2] for run_id, _ in watch.of("started")]
    rates = ("0.001", "0.002", "0.004", "0.008")
    assert started[:8] == [f"s{seed}_lr{rate}" for rate in rates for seed in (3, 4)]
    assert record.load(results / "glue-sst2_tiny-bert_full_s0.json").spec["lr"] == 4e-3
    assert outcome.ran == 10 and set(planned().values()) == {"done"}
    again, _ = go(WIDER)
    assert again.ran == 0


def tpe(**fields):
    return Search(lr=(1e-5, 1e-2), examples=20, sampler="tpe", **{"rates": 12} | fields)


def quadratic(rate):
    return Outcome(-(math.log10(rate / 3e-4) ** 2))


def test_tpe_proposes_what_optuna_does_and_goes_on_after_an_interruption_as_it_would_have():
    import optuna

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    between = optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)
    expected = []
    for _ in range(12):
        trial = study.ask({"lr": between})
        expected.append(float(f"{trial.params['lr']:.3g}"))
        study.tell(trial, quadratic(expected[-1]).mean)
    known = {}
    for n in range(1, 13):  # one trial at a time, as a runner finds them
        rates = tried(tpe(), known.get)
        assert rates == expected[:n]
        known[rates[-1]] = quadratic(rates[-1])
    assert tried(tpe(), known.get) == expected
    assert abs(math.log10(chosen(tpe(), known) / 3e-4)) < 0.25
    assert tried(tpe(rates=5), known.get) == expected[:5]


def test_tpe_goes_on_after_a_rate_that_failed():
    rates = tried(tpe(rates=6), lambda rate: Outcome(None))
    assert len(rates) == 6 and all(1e-5 <= rate <= 1e-2 for rate in rates)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rates": None}, "rates: missing"),
        ({"lr": (1e-5, 1e-4, 1e-3)}, "lowest and the highest"),
        ({"lr": (1e-3, 1e-5)}, "lowest and the highest"),
        ({"extend": 2}, "only a grid is extended"),
        ({"sampler": "grid"}, "set sampler: tpe"),
    ],
)
def test_tpe_takes_a_range_and_a_number_of_rates(fields, said):
    usual = {"lr": (1e-5, 1e-2), "examples": 20, "sampler": "tpe", "rates": 4}
    with pytest.raises(ValidationError, match=said):
        Search(**usual | fields)


def test_a_matrix_runs_the_trials_that_tpe_proposes(go, in_process, results):
    in_process(pretend(score=lambda spec: 1 + quadratic(spec.lr).mean / 10))
    matrix = SEARCH.replace("[1e-3, 2e-3, 4e-3]", "[1e-5, 1e-2], sampler: tpe, rates: 6")
    outcome, _ = go(matrix)
    assert outcome.failed == 0 and outcome.ran == 8
    rates = {record.load(p).spec["lr"] for p in (results / "search").glob("*.json")}
    assert rates == set(tried(tpe(rates=6), quadratic))
    best = max(rates, key=lambda rate: quadratic(rate).mean)
    assert record.load(results / "glue-sst2_tiny-bert_full_s0.json").spec["lr"] == best
