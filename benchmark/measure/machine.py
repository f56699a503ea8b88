"""How busy the machine is beside this process: what makes a step time untrue."""

import time

import psutil


class Others:
    """What other processes, and a hypervisor's other guests, take of the processors from its making on."""

    def __init__(self) -> None:
        self._start = _seconds()

    def share(self) -> float:
        """From 0 to 1, the mean since the start, of all processors; 0 within the first moment."""
        before, now = self._start, _seconds()
        wall, busy, own = (b - a for a, b in zip(before, now, strict=True))
        if wall < 0.1:
            return 0.0
        return min(1.0, max(0.0, (busy - own) / (wall * (psutil.cpu_count() or 1))))


def _seconds() -> tuple[float, float, float]:
    """By the clock, by all processors together when not idle, and by this process."""
    of_all = psutil.cpu_times()
    idle = of_all.idle + getattr(of_all, "iowait", 0.0)
    guest = getattr(of_all, "guest", 0.0) + getattr(of_all, "guest_nice", 0.0)  # counted in user
    return time.monotonic(), sum(of_all) - idle - guest, time.process_time()
