"""The order of the training batches never beats in time with a cycle of groups."""

import numpy as np
import pytest
import scipy.stats
from datasets import Dataset
from factories import make_spec
from pairs import each_pair

from benchmark.data import loaders
from benchmark.data.examples import Rows

SWEEPS = 50


def rows_of(lengths):
    encoded = Dataset.from_dict({"input_ids": [[1] * n for n in lengths]})
    return Rows(encoded, [0] * len(lengths), [str(i) for i in range(len(lengths))], "train")


def tokens_of(features):
    return sum(len(f["input_ids"]) for f in features)


@pytest.mark.parametrize(
    ("groups", "order", "grouped"),
    each_pair([2, 4, 5, 8, 14, 34], ["as drawn", "sorted", "periodic"], [False, True]),
)
def test_no_group_of_a_cycle_sees_batches_of_its_own_kind_alias(groups, order, grouped):
    """One-way analysis of variance of the steps' tokens by group, over 50 sweeps of several epochs.

    transformers sorts within `groups` batches here, so its own order would give each group one length.
    """
    lengths = np.random.default_rng(0).lognormal(2.4, 0.6, 32 * groups).astype(int) + 1
    if order == "sorted":
        lengths = np.sort(lengths)
    elif order == "periodic":  # a file whose rows come short, longer, longest, short ...
        lengths = np.sort(lengths).reshape(groups, 32).T.flatten()
    spec = make_spec(batch_size=8, group_by_length=grouped, seed=1)
    loader = loaders.training_batches(rows_of(lengths.tolist()), tokens_of, spec)
    tokens = [n for _ in range(-(-SWEEPS * groups // len(loader))) for n in loader]
    by_group = [tokens[group : SWEEPS * groups : groups] for group in range(groups)]
    assert all(len(seen) == SWEEPS for seen in by_group)
    assert scipy.stats.f_oneway(*by_group).pvalue > 1e-3


def test_grouping_by_length_shuffles_whole_batches_by_the_seed():
    lengths = np.random.default_rng(0).integers(1, 40, 203).tolist()
    rows = rows_of(lengths)

    def epochs(seed):
        spec = make_spec(batch_size=4, group_by_length=True, seed=seed)
        loader = loaders.training_batches(
            rows, lambda fs: sorted(len(f["input_ids"]) for f in fs), spec
        )
        assert len(loader) == 51
        return [list(loader) for _ in range(2)]

    first, second = epochs(0)
    assert [first, second] == epochs(0) and first != second and epochs(1)[0] != first
    assert sorted(n for batch in first for n in batch) == sorted(lengths)
    spread = np.mean([batch[-1] - batch[0] for batch in first])
    assert spread < 5, "rows of one batch are of like length"
