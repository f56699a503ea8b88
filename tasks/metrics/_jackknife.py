"""Jackknife values: one value per example, for a score that is computed from all examples together.

The value of example i is f + (n - 1) (m - f_i). Here f is the score of all n examples, f_i the score without
example i, and m the mean of the f_i. These are Tukey's pseudo-values (Efron and Tibshirani 1993, chapter 11),
shifted so that their mean is f. For a mean over examples they are the examples' own scores. For another
smooth score they measure each example's influence. The standard error of their mean is the jackknife's
standard error of the score.
"""

from collections.abc import Callable

import numpy as np


def values(parts: np.ndarray, score: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    """The jackknife value of each example.

    `parts` (n, k): the terms that each example adds to the k sums that the score is computed from. `score`: a
    function from sums (..., k) to scores (...).
    """
    parts = np.asarray(parts, dtype=np.float64)
    total = parts.sum(axis=0)
    score_of_all = float(score(total))
    if len(parts) == 1:
        return [score_of_all]
    without = score(total - parts)
    return (score_of_all + (len(parts) - 1) * (without.mean() - without)).tolist()


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """`above` / `below`, and 0 where `below` is 0."""
    return np.divide(above, below, out=np.zeros(np.shape(below)), where=below != 0)
