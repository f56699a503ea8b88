"""The report's section on learning-rate searches: the score of each rate, the rate that the rule chooses, and
the budget of each strategy's search."""

import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.analysis.summary import Cell, Row
from benchmark.matrices import search
from benchmark.matrices.search import Outcome, Search
from benchmark.records.record import RunRecord
from benchmark.records.spec import RunSpec
from benchmark.report import plots
from benchmark.report.pictures import Gallery, Picture, Place
from benchmark.report.tables import Strong, Table, model_name, task_name

_RULES = {
    "best": "the one with the best mean over the seeds of the search",
    "lowest_within_error": "the lowest one within one standard error of the best mean over the seeds of "
    "the search (the best one, where no standard error is known)",
}
_LENGTH = ("train_examples", "epochs", "max_steps", "batch_size", "accumulate")


@dataclass(frozen=True, kw_only=True)
class Section:
    """A table, its pictures and sentences. `rules` say how a rate is chosen, `equal` which searches had equal
    budgets, `warnings` which had unequal ones and which runs did not use the chosen rate."""

    table: Table
    pictures: tuple[Picture, ...]
    rules: tuple[str, ...]
    equal: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Searched:
    """The search of a cell, as far as trials are recorded.

    `trials` has, for each rate tried (ascending), the specs of its trials with their records. `outcomes` is
    None for a rate of which a trial is missing.
    """

    row: Row
    search: Search
    trials: Mapping[float, list[tuple[RunSpec, RunRecord | None]]]
    outcomes: Mapping[float, Outcome | None]

    @property
    def name(self) -> str:
        return f"{self.row.task}, {self.row.model}, {self.row.label}"

    @property
    def known(self) -> dict[float, Outcome]:
        return {rate: outcome for rate, outcome in self.outcomes.items() if outcome is not None}

    @property
    def means(self) -> dict[float, tuple[float, float | None]]:
        """For each rate with a score: its mean over seeds, in the unit of the metric, and standard error."""
        return {
            rate: (_mean(record for _, record in self.trials[rate]), outcome.error)
            for rate, outcome in self.known.items()
            if outcome.mean is not None
        }

    @property
    def chosen(self) -> float | None:
        """The rate that the rule chooses; None while trials are missing or where every rate failed."""
        complete = len(self.known) == len(self.outcomes)
        return search.chosen(self.search, self.known) if complete else None

    @property
    def edge(self) -> float | None:
        """The best rate, if it is the lowest or the highest one tried; else None."""
        means = {rate: known.mean for rate, known in self.known.items() if known.mean is not None}
        best = max(means, key=lambda rate: means[rate], default=None)
        return best if best in (min(self.outcomes), max(self.outcomes)) else None


def section(
    rows: Sequence[Row],
    cells: Iterable[Cell],
    trials: Iterable[RunRecord],
    gallery: Gallery,
    places: Sequence[Place],
) -> Section | None:
    """The section; None where no rate has all its trials recorded. `rows` has one row for each of `cells`.

    It has pictures of the searches of `places`.
    """
    recorded = {(trial.run_id, trial.spec_hash): trial for trial in trials}
    pairs = list(zip(rows, cells, strict=True))
    searches = [_searched(row, cell, recorded) for row, cell in pairs if cell.search is not None]
    if not any(searched.known for searched in searches):
        return None
    equal, unequal = _budgets(rows, searches)
    return Section(
        table=_table(rows, searches),
        pictures=tuple(_pictures(searches, gallery, places)),
        rules=tuple(_rules(searches)),
        equal=tuple(equal),
        warnings=(*_not_by_the_rule(searches), *unequal),
    )


def _pictures(
    searches: Sequence[_Searched], gallery: Gallery, places: Sequence[Place]
) -> Iterator[Picture]:
    for place in places:
        mine = [s for s in searches if (s.row.task, s.row.model) == place and s.means]
        if mine:
            drawing = plots.rates(
                {searched.row.label: searched.means for searched in mine},
                {searched.row.label: searched.chosen for searched in mine},
                by=mine[0].search.by,
                title=f"{gallery.title(place)}: learning rates tried",
                colours=gallery.colours,
            )
            yield gallery.add(drawing, "rates", *place)


def _searched(row: Row, cell: Cell, recorded: Mapping[tuple[str, str], RunRecord]) -> _Searched:
    assert cell.search is not None
    trials_of: dict[float, list[tuple[RunSpec, RunRecord | None]]] = {}

    def outcome(rate: float) -> Outcome | None:
        if rate not in trials_of:
            specs = cell.trials([rate])
            trials_of[rate] = [(spec, recorded.get((spec.run_id, spec.hash))) for spec in specs]
        records = [record for _, record in trials_of[rate]]
        done = [r for r in records if r is not None and r.status != "interrupted"]
        return search.outcome_of([r.scores for r in done]) if len(done) == len(records) else None

    rates = sorted(search.tried(cell.search, outcome))
    outcomes = {rate: outcome(rate) for rate in rates}
    trials = {rate: trials_of[rate] for rate in rates}
    return _Searched(row=row, search=cell.search, trials=trials, outcomes=outcomes)


def _table(rows: Sequence[Row], searches: Sequence[_Searched]) -> Table:
    width = max(len(searched.outcomes) for searched in searches)
    body = []
    for searched in searches:
        row = searched.row
        cells = [_rate_text(searched, rate) for rate in searched.outcomes]
        names = (task_name(rows, row.task), model_name(rows, row.model), row.label)
        used = "–" if row.lr is None else f"{row.lr:g}"
        body.append((*names, used, *cells, *[""] * (width - len(cells))))
    rates = [f"rate {i + 1}: mean ± standard error (seeds)" for i in range(width)]
    columns = ("task", "model", "strategy", "rate used", *rates)
    return Table(columns=columns, rows=tuple(body), names=3)


def _rate_text(searched: _Searched, rate: float) -> str:
    records = [record for _, record in searched.trials[rate]]
    outcome = searched.outcomes[rate]
    if outcome is None or outcome.mean is None:
        states = (record.status if record else "missing" for record in records)
        failed = dict.fromkeys(state for state in states if state != "success")
        result = ", ".join(failed) or "no score"
    else:
        mean = _mean(records)
        error = f" ± {outcome.error:.4f}" if outcome.error is not None else ""
        result = f"{mean:.4f}{error} ({len(records)})"
    text = f"{rate:g}: {result}{', edge' if rate == searched.edge else ''}"
    return Strong(text) if rate == searched.chosen else text


def _mean(records: Iterable[RunRecord | None]) -> float:
    return statistics.fmean(r.scores.main for r in records if r and r.scores)


def _rules(searches: Sequence[_Searched]) -> list[str]:
    by_rule: dict[tuple[str, str], list[str]] = {}
    for searched in searches:
        rule = (searched.search.by, searched.search.choose)
        by_rule.setdefault(rule, []).append(searched.row.label)
    lines = []
    for (by, choose), labels in by_rule.items():
        of = f" ({', '.join(dict.fromkeys(labels))})" if len(by_rule) > 1 else ""
        lines.append(f"The rate chosen{of} is {_RULES[choose]}, by the {by} on held-out rows.")
    return lines


def _not_by_the_rule(searches: Sequence[_Searched]) -> list[str]:
    """A line for each search that is not finished, or whose chosen rate is not the one used."""
    lines = []
    for searched in searches:
        used, chosen = searched.row.lr, searched.chosen
        if len(searched.known) < len(searched.outcomes):
            lines.append(f"{searched.name}: the search is not finished")
        elif used is not None and chosen != used:
            text = "none, because every rate failed" if chosen is None else f"{chosen:g}"
            lines.append(
                f"{searched.name}: the rate used, {used:g}, is not the one its search chooses: {text}"
            )
    return lines


def _budgets(rows: Sequence[Row], searches: Sequence[_Searched]) -> tuple[list[str], list[str]]:
    """A line for each task and model with a search, in two lists: those where all strategies had the same
    search budget, and those where they had not."""
    by_row = {searched.row: searched for searched in searches}
    equal, unequal = [], []
    for task, model in dict.fromkeys((s.row.task, s.row.model) for s in searches):
        labels: dict[tuple[str, Any], list[str]] = {}
        for row in rows:
            if (row.task, row.model) == (task, model):
                searched = by_row.get(row)
                if searched is not None:
                    budget = _budget_text(searched), _effort(searched)
                elif row.lr is not None:
                    budget = "a fixed rate, no search", None
                else:  # nothing trains, or no run is recorded
                    continue
                labels.setdefault(budget, []).append(row.label)
        if len(labels) == 1:
            ((text, _),) = labels
            equal.append(f"Every strategy had the same search budget in {task}, {model}: {text}.")
        else:
            parts = [f"{', '.join(names)}: {text}" for (text, _), names in labels.items()]
            if len({text for text, _ in labels}) < len(labels):
                parts.append("rules, seeds or training rows differ")
            unequal.append(f"unequal search budget in {task}, {model}: {'; '.join(parts)}")
    return equal, unequal


def _effort(searched: _Searched) -> Any:
    """A value that is equal for searches of equal effort. It does not depend on the rates themselves."""
    rule = searched.search.model_dump(exclude={"lr"})
    ((first, _), *_) = next(iter(searched.trials.values()))
    length = tuple(getattr(first, name) for name in _LENGTH)
    return (
        len(searched.search.lr),
        len(searched.trials),
        *_factors(searched),
        *rule.values(),
        length,
    )


def _factors(searched: _Searched) -> tuple[str, ...]:
    """The distinct factors between neighbouring rates of a grid, to two digits because they are rounded.

    For rates that were proposed: the factor between the lowest and the highest allowed.
    """
    proposed = searched.search.sampler == "tpe"
    rates = searched.search.lr if proposed else list(searched.trials)
    factors = [above / below for below, above in itertools.pairwise(rates)]
    return tuple(dict.fromkeys(f"{factor:.2g}" for factor in sorted(factors)))


def _budget_text(searched: _Searched) -> str:
    listed, tried = len(searched.search.lr), len(searched.trials)
    seeds = len(searched.search.seeds)
    specs = [spec for pairs in searched.trials.values() for spec, _ in pairs]
    records = [record for pairs in searched.trials.values() for _, record in pairs]
    steps = max((r.train.steps for r in records if r and r.train), default=specs[0].max_steps)
    length = f"{specs[0].epochs:g} epochs" if steps is None else f"{steps:,} steps"
    beyond = f" ({tried - listed} of them beyond the grid)" if tried > listed else ""
    if searched.search.sampler == "tpe":
        rates = f"{tried} rates that TPE proposed within a factor of {_factors(searched)[0]}"
    else:
        rates = f"{tried} rates{beyond} a factor of {' or '.join(_factors(searched))} apart"
    return (
        f"{rates} × {seeds} seed{'s' if seeds > 1 else ''} × {length} "
        f"of {specs[0].batch_size * specs[0].accumulate} examples, "
        f"on {searched.search.examples:,} held-out rows"
    )
