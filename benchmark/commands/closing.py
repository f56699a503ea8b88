"""How a call of `hift-bench run` ends: its closing line and its exit code.

Both are told from the states that the runs have at the end, whichever runner made them.
"""

import functools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmark.matrices import planning
from benchmark.matrices.planning import Planned
from benchmark.records import record

FAILED_ELSEWHERE, REFUSED_ELSEWHERE = "failed in other runners", "refused in other runners"
ENDS = (
    *("trained", "evaluated", "oom", "diverged", "failed", "refused", "unsupported"),
    *("already done", "done by other runners", FAILED_ELSEWHERE, REFUSED_ELSEWHERE),
    *("oom before", "diverged before", "left"),
)
"""The counts of the closing line, in its order. A run is in exactly one of them."""
FINE = ("done", "unsupported")
"""States at the end that are no failure: what cannot work is a result."""


@dataclass(frozen=True)
class Closing:
    """ends: how each run that this call made ended (`runner.Outcome.ends`). before, after: all runs of the
    matrix with their states before and after the call. asked: the ids of the runs that it should have made.
    settled: the states in which runs were left alone.
    """

    ends: Mapping[str, str]
    before: Iterable[Planned]
    after: Iterable[Planned]
    asked: Collection[str]
    settled: Collection[str]

    @property
    def line(self) -> str:
        """The counts of all runs, lr trials included, and what to do: "3 trained, 1 refused, 16 left".

        Left are the runs that were not started: those beyond the limit, of other shards, and those whose
        learning rate could not be chosen.
        """
        counts = Counter(end for _, end in self._all)
        said = ", ".join(f"{counts[end]} {end}" for end in ENDS if counts[end])
        return "; ".join([said, *self._advice()])

    @functools.cached_property
    def _all(self) -> list[tuple[Planned, str]]:
        """Each run, with the one of ENDS in which it is counted."""
        before = {p.run_id: p.state for p in self.before}
        return [(p, self._end(p, before.get(p.run_id))) for p in self.after]

    def _end(self, p: Planned, before: str | None) -> str:
        if p.run_id in self.ends and (p.state != "done" or self.ends[p.run_id] in _SUCCESS):
            return self.ends[p.run_id]
        if p.state == "done":
            return "already done" if before == "done" else "done by other runners"
        if p.state == "unsupported":
            return p.state
        if before == p.state and p.state in self.settled:
            return f"{p.state} before"
        has_record = p.spec is not None and p.state not in ("missing", "stale")
        if has_record and p.run_id in self.asked:  # a record came meanwhile
            return REFUSED_ELSEWHERE if p.state == "refused" else FAILED_ELSEWHERE
        return "left"

    @property
    def code(self) -> int:
        """The exit code: 0 if each run that was asked for has its result, 2 if one was refused, else 1."""
        states = {p.state for p in self._short()}
        return 2 if "refused" in states else 1 if states else 0

    def _short(self) -> list[Planned]:
        """The runs that were asked for and have no result. A trial that diverged or was too large has told
        what it was to tell."""
        return [
            p
            for p in self.after
            if p.run_id in self.asked
            and p.state not in FINE
            and self.ends.get(p.run_id) != "unsupported"
            and not (p.trial and p.state in planning.RESULTS)
        ]

    def _advice(self) -> list[str]:
        """What to do about the runs without a result."""
        short = self._short()
        states = {p.state for p in short if p.spec is not None}
        advice = []
        if "refused" in states:
            advice.append("mend what was refused")
        if states - {"refused", *planning.RESULTS}:
            advice.append("the same command tries again what failed")
        if states & {*planning.RESULTS}:
            advice.append("--retry repeats what ran out of memory or diverged")
        if any(p.state == "failed" and p.spec is None for p in short):
            advice.append("search other learning rates where every one failed")
        return advice

    def others(self, results: Path) -> list[str]:
        """A line about each run that another runner could not make, with the reason."""
        lines = []
        for p, end in self._all:
            if p.spec is not None and end in (FAILED_ELSEWHERE, REFUSED_ELSEWHERE):
                kept = record.load(planning.path_of(p.spec, results))
                lines.append(f"{p.run_id}: {p.state} in another runner: {kept.error}")
        return lines


_SUCCESS = ("trained", "evaluated")
