"""What scores say and what they do not: the arithmetic of comparing runs. No files, no torch."""

import math
import statistics
from collections.abc import Sequence


def standard_error(scores: Sequence[float] | None) -> float | None:
    """Of the mean of the examples' scores: their standard deviation (ddof=1) over sqrt(n).

    None without scores, and of one example.
    """
    if scores is None or len(scores) < 2:
        return None
    return statistics.stdev(scores) / math.sqrt(len(scores))
