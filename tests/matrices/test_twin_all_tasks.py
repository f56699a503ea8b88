"""The matrix that runs every task on its twin names each of them, once, with a model that can do it."""

from collections import Counter

import pytest

from benchmark.matrices import listing, matrix
from benchmark.models import registry
from benchmark.twin import models as twins
from tasks import base

CELLS = matrix.load(listing.MATRICES / "twin_all_tasks.yaml").cells


def test_every_task_is_run_once_by_hift_for_a_few_steps_on_its_twin():
    assert Counter(cell.task for cell in CELLS) == Counter(base.names())
    for cell in CELLS:
        (spec,) = cell.runs()
        assert (spec.strategy, spec.data) == ("hift", "twin")
        assert spec.max_steps <= 5 and spec.eval_examples <= 8


def test_every_family_of_twin_models_takes_part():
    assert {cell.model for cell in CELLS} == set(twins.TWINS)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.task)
def test_the_model_can_do_the_task(cell):
    head = base.adapter(base.load(cell.task)).head
    registry.check_head(registry.source(cell.model), head)
