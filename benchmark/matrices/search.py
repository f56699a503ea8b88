"""A learning-rate search: its entry in a matrix, the rates that it tries and the rate that it chooses.

Arithmetic alone: `planning` reads the records of the trials and passes their outcomes.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from benchmark.records.record import Scores
from benchmark.records.spec import Positive, Strict

Rate = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Search(Strict):
    """One trial per rate and seed, scored on `examples` rows held out of train.

    `sampler`: grid tries the rates of `lr`. tpe tries `rates` rates between the two of `lr`, each proposed by
    Optuna's TPE from the outcomes of those before it; its random choices are seeded, so a search that was
    interrupted goes on as it would have. `extend`, for a grid: the largest number of rates to add. While the
    best rate is the lowest or highest tried, the next one beyond it is tried too, at the factor of the grid.
    `by`: the task's main score, or the loss, which
    needs no generated text. `choose`: the best rate (on a tie the first listed), or the lowest whose mean is
    within one standard error of the best, because a lower rate stays stable in longer runs.
    """

    lr: Annotated[tuple[Rate, ...], Field(min_length=2)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    examples: Positive
    sampler: Literal["grid", "tpe"] = "grid"
    rates: Annotated[int, Field(ge=1, le=1000)] | None = None
    extend: Annotated[int, Field(ge=0, le=100)] = 0
    by: Literal["score", "loss"] = "score"
    choose: Literal["best", "lowest_within_error"] = "best"

    @model_validator(mode="after")
    def _different(self) -> "Search":
        if len({f"{rate:g}" for rate in self.lr}) < len(self.lr):  # as a trial's run id shows them
            raise ValueError(f"lr: the rates {list(self.lr)} are not all different")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} are not all different")
        if self.sampler == "grid" and self.rates is not None:
            raise ValueError("rates: a grid tries those of lr; for another number set sampler: tpe")
        if self.sampler == "tpe":
            if self.rates is None:
                raise ValueError("rates: missing; sampler tpe needs the number of rates to try")
            if len(self.lr) != 2 or self.lr[0] > self.lr[1]:
                raise ValueError("lr: sampler tpe takes the lowest and the highest rate")
            if self.extend:
                raise ValueError("extend: only a grid is extended")
        return self


@dataclass(frozen=True)
class Outcome:
    """The trials of one rate: their mean over the search's seeds, as a score where higher is better.

    `mean` is None if a trial failed, `error` (the standard error of the mean) if a trial has none.
    """

    mean: float | None
    error: float | None = None


def outcome(values: Sequence[float | None], errors: Sequence[float | None]) -> Outcome:
    """The mean over trials of one rate from each trial's value (None if it failed) and standard error.

    The errors are taken as independent, since each seed draws other held-out rows.
    """
    if any(value is None for value in values):
        return Outcome(None)
    known = [error for error in errors if error is not None]
    whole = math.hypot(*known) / len(known) if len(known) == len(values) else None
    return Outcome(statistics.fmean(value for value in values if value is not None), whole)


def outcome_of(scores: Sequence[Scores | None]) -> Outcome:
    """The mean over trials of one rate from their scores (None if a trial failed).

    The sign of a metric where lower is better is changed.
    """
    signed = [None if s is None else s.main if s.higher_is_better else -s.main for s in scores]
    return outcome(signed, [None if s is None else s.stderr for s in scores])


def tried(search: Search, outcome_at: Callable[[float], Outcome | None]) -> list[float]:
    """The rates to try, as far as they are known.

    They are those of the grid, then those added beyond its edge; or with tpe all whose predecessors have
    run. `outcome_at` returns None while a trial of the rate has not run.
    """
    if search.sampler == "tpe":
        return _proposed(search, outcome_at)
    rates = list(search.lr)
    for _ in range(search.extend):
        outcomes = [outcome_at(rate) for rate in rates]
        means = {
            rate: outcome.mean
            for rate, outcome in zip(rates, outcomes, strict=True)
            if outcome is not None and outcome.mean is not None
        }
        if any(outcome is None for outcome in outcomes) or not means:
            break
        best = max(means, key=lambda rate: means[rate])
        beyond = _beyond(best, sorted(rates))
        if beyond is None:
            break
        rates.append(beyond)
    return rates


def _proposed(search: Search, outcome_at: Callable[[float], Outcome | None]) -> list[float]:
    """The rates that Optuna proposes one after the other, up to the first that has not run.

    The study is built again from the outcomes each time, so nothing but the records has to be stored.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    lowest, highest = search.lr
    between = optuna.distributions.FloatDistribution(lowest, highest, log=True)
    rates: list[float] = []
    for _ in range(search.rates or 0):
        trial = study.ask({"lr": between})
        rate = float(f"{trial.params['lr']:.3g}")  # as a trial's run id shows it
        rates.append(rate)
        outcome = outcome_at(rate)
        if outcome is None:
            break
        failed = outcome.mean is None
        state = optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE
        study.tell(trial, outcome.mean, state=state)
    return list(dict.fromkeys(rates))


def chosen(search: Search, outcomes: dict[float, Outcome]) -> float | None:
    """The rate that the search chooses; None if every rate failed."""
    means = {rate: o.mean for rate, o in outcomes.items() if o.mean is not None}
    if not means:
        return None
    best = max(means, key=lambda rate: means[rate])  # the first of equals
    if search.choose == "best":
        return best
    least = means[best] - (outcomes[best].error or 0.0)
    return min(rate for rate, mean in means.items() if mean >= least)


def _beyond(best: float, rates: Sequence[float]) -> float | None:
    """The next rate beyond `rates` (ascending), by the factor there, if `best` is the first or last.

    None where it would be no positive number.
    """
    if best not in (rates[0], rates[-1]):
        return None
    inner = rates[1] if best == rates[0] else rates[-2]
    try:
        beyond = float(f"{best**2 / inner:.3g}")
    except OverflowError:
        return None
    return beyond if 0 < beyond < math.inf else None
