"""How far a call of `hift-bench run` is, over all its runs."""

import time
from collections import Counter
from collections.abc import Callable

from benchmark.matrices.tally import duration
from benchmark.records.record import RunRecord


class Overall:
    """Counts of the runs by how they ended, and the time that is left. total: the expected number of runs."""

    def __init__(self, total: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock, self._began = total or 0, clock, clock()
        self._ends: Counter[str] = Counter()
        self._running = 0

    @property
    def ended(self) -> int:
        return self._ends.total()

    @property
    def total(self) -> int:
        """How many runs there are: as expected, or more if a search has added trials."""
        return max(self._total, self.ended + self._running)

    def started(self) -> None:
        self._running += 1

    def dropped(self) -> None:
        self._running -= 1

    def finished(self, done: RunRecord) -> None:
        trained = "trained" if done.spec.get("lr") is not None else "evaluated"
        self._ends[trained if done.status == "success" else done.status] += 1
        self._running -= 1

    def __str__(self) -> str:
        """5 trained, 1 refused, 2 running, 16 left, about 14 min

        The time left takes the runs that are left to end as fast, one after the other or side by side, as
        those that ended so far.
        """
        left = self.total - self.ended - self._running
        counts = {**self._ends, "running": self._running, "left": left}
        parts = [f"{count} {end}" for end, count in counts.items() if count]
        if self.ended and self.ended < self.total:
            each = (self._clock() - self._began) / self.ended
            parts.append(f"about {duration(each * (self.total - self.ended))}")
        return ", ".join(parts)
