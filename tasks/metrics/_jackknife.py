"""Scores of single examples, for scores of a whole corpus: the jackknife's values.

The value of example i is f + (n - 1) (m - f_i), where f is the score of all n examples, f_i that of all
but i, and m the mean of the f_i (Tukey's pseudo-values; Efron and Tibshirani 1993, chapter 11; moved so that
their mean is f). Of a mean over examples they are the examples' own scores. Of another smooth score they say
how much each example moves it, and the standard error of their mean is the jackknife's of the score.
"""

from collections.abc import Callable

import numpy as np


def values(parts: np.ndarray, score: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    """One value per example, from what each adds to the sums that the score is made of.

    `parts` is (n, k), a row per example; `score` takes sums (..., k) to scores (...).
    """
    parts = np.asarray(parts, dtype=np.float64)
    total = parts.sum(axis=0)
    whole = float(score(total))
    if len(parts) == 1:
        return [whole]
    without = score(total - parts)
    return (whole + (len(parts) - 1) * (without.mean() - without)).tolist()


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """`above` / `below`, and 0 where `below` is 0."""
    return np.divide(above, below, out=np.zeros(np.shape(below)), where=below != 0)
