"""A learning-rate search: what a matrix says of it, which rates it tries and which of them it takes.

Pure arithmetic: what the trials of a rate came to is asked of a function, the runner's, which reads records.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from benchmark.records.record import Scores
from benchmark.records.spec import Strict

Rate = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Search(Strict):
    """One trial per rate and seed, scored on `examples` rows held out of train.

    `extend`: as many further rates, each beyond the best while that is the lowest or highest tried, at the
    grid's own factor. `by`: the task's main score, or the loss, which costs a forward pass where the score
    needs generated text. `choose`: the best rate (the first listed on a tie), or the lowest within one
    standard error of it, since a lower rate stands more steps.
    """

    lr: Annotated[tuple[Rate, ...], Field(min_length=2)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    examples: Annotated[int, Field(ge=1)]
    extend: Annotated[int, Field(ge=0)] = 0
    by: Literal["score", "loss"] = "score"
    choose: Literal["best", "lowest_within_error"] = "best"

    @model_validator(mode="after")
    def _different(self) -> "Search":
        if len({f"{rate:g}" for rate in self.lr}) < len(self.lr):  # as a trial's run id shows them
            raise ValueError(f"lr: the rates {list(self.lr)} are not all different")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} are not all different")
        return self


@dataclass(frozen=True)
class Outcome:
    """What the trials of one rate came to: the mean over the search's seeds, higher is better, with its
    standard error where it is known. `mean` is None where a trial failed."""

    mean: float | None
    error: float | None = None


def outcome(values: Sequence[float | None], errors: Sequence[float | None]) -> Outcome:
    """Of one rate's trials, a value (None: failed) and the standard error of it each.

    The error is that of the mean, of trials whose held-out rows are drawn anew.
    """
    if any(value is None for value in values):
        return Outcome(None)
    known = [error for error in errors if error is not None]
    whole = math.hypot(*known) / len(known) if len(known) == len(values) else None
    return Outcome(statistics.fmean(value for value in values if value is not None), whole)


def outcome_of(scores: Sequence[Scores | None]) -> Outcome:
    """Of the scores of one rate's trials, None where a trial has none; a metric that is better lower changes
    its sign."""
    signed = [None if s is None else s.main if s.higher_is_better else -s.main for s in scores]
    return outcome(signed, [None if s is None else s.stderr for s in scores])


def tried(search: Search, came_to: Callable[[float], Outcome | None]) -> list[float]:
    """The rates to try: those listed, then, as far as their trials have run, those beyond an edge.

    `came_to` says None while a rate's trials are still to run.
    """
    rates = list(search.lr)
    for _ in range(search.extend):
        found = [came_to(rate) for rate in rates]
        means = {
            rate: outcome.mean
            for rate, outcome in zip(rates, found, strict=True)
            if outcome is not None and outcome.mean is not None
        }
        if any(outcome is None for outcome in found) or not means:
            break
        best = max(means, key=lambda rate: means[rate])
        beyond = _beyond(best, sorted(rates))
        if beyond is None:
            break
        rates.append(beyond)
    return rates


def chosen(search: Search, found: dict[float, Outcome]) -> float | None:
    """The rate that the search takes; None where every rate failed."""
    means = {rate: o.mean for rate, o in found.items() if o.mean is not None}
    if not means:
        return None
    best = max(means, key=lambda rate: means[rate])  # the first of equals
    if search.choose == "best":
        return best
    least = means[best] - (found[best].error or 0.0)
    return min(rate for rate, mean in means.items() if mean >= least)


def _beyond(best: float, rates: Sequence[float]) -> float | None:
    """The next rate outside of `rates` (ascending) where `best` is at an edge, by the factor there."""
    if best == rates[0]:
        return float(f"{rates[0] ** 2 / rates[1]:.3g}")
    if best == rates[-1]:
        return float(f"{rates[-1] ** 2 / rates[-2]:.3g}")
    return None
