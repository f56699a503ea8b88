"""How far a matrix is, from its records alone: what is done, what is left, and how long that may take."""

import itertools
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmark.matrices import planning
from benchmark.matrices.planning import Planned

LEFT = ("missing", "stale", "waiting", "interrupted")
"""The states of runs that are running, or were not made yet."""
_LATEST = 20  # records by which the time left is told


@dataclass(frozen=True)
class Tally:
    """counts: how many runs are in which state of `planning.Planned`. seconds_left: None if unknown."""

    counts: Counter[str]
    seconds_left: float | None

    @property
    def total(self) -> int:
        return self.counts.total()

    @property
    def left(self) -> int:
        return sum(self.counts[state] for state in LEFT)

    def __str__(self) -> str:
        """12 of 24 done, 1 refused, 11 left, about 14 min"""
        others = sorted(state for state in self.counts if state != "done" and state not in LEFT)
        parts = [f"{self.counts['done']} of {self.total} done"]
        parts += [f"{self.counts[state]} {state}" for state in others]
        if self.left:
            parts.append(f"{self.left} left")
        if self.left and self.seconds_left is not None:
            parts.append(f"about {duration(self.seconds_left)}")
        return ", ".join(parts)


def of(planned: Iterable[Planned], results: Path) -> Tally:
    """The tally of these runs, whose records are below `results`.

    The time left is the median time between the ends of the latest runs, whoever made them and however many
    at once, for each run that is left.
    """
    planned = list(planned)
    counts = Counter(p.state for p in planned)
    ends = sorted(
        planning.path_of(p.spec, results).stat().st_mtime
        for p in planned
        if p.spec is not None and p.state == "done"
    )[-_LATEST:]
    gaps = [after - before for before, after in itertools.pairwise(ends)]
    left = sum(counts[state] for state in LEFT)
    return Tally(counts, statistics.median(gaps) * left if gaps else None)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 14 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
