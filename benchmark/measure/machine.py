"""The load that other processes put on the machine. Step times measured under such load are not shown."""

import time
from collections.abc import Sequence

import psutil


class Others:
    """Processor time that other processes and virtual machines use, measured from construction on.

    earlier: `seconds()` of an earlier process that did a part of the same work.
    """

    def __init__(self, earlier: Sequence[float] = (0.0, 0.0, 0.0)) -> None:
        self._start = [now - before for now, before in zip(_seconds(), earlier, strict=True)]

    def seconds(self) -> list[float]:
        """Seconds since construction by three clocks, those of earlier processes included (`_seconds`)."""
        return [now - start for now, start in zip(_seconds(), self._start, strict=True)]

    def share(self) -> float:
        """Mean share (0 to 1) of all processors' time since construction; 0 within the first 0.1 s."""
        wall, busy, own = self.seconds()
        if wall < 0.1:
            return 0.0
        return min(1.0, max(0.0, (busy - own) / (wall * (psutil.cpu_count() or 1))))


def _seconds() -> tuple[float, float, float]:
    """Three clocks in seconds: wall time, busy time of all processors, processor time of this process."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # part of `user`
    return time.monotonic(), sum(times) - idle - guest, time.process_time()
