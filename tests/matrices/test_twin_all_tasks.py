"""The matrix that runs every task on its twin names each of them, once, with a model that can do it.

A task is one YAML. Who writes down what it makes of its twin (`rendering.py`) names it here as well.
"""

from collections import Counter
from pathlib import Path

import pytest

from benchmark.matrices import listing, matrix
from benchmark.models import registry
from benchmark.models.facts import check_head
from benchmark.twin import models as twins
from tasks import base

RENDERED = Path(__file__).parents[1] / "tasks" / "golden"
GOLDEN = [
    path.relative_to(RENDERED).with_suffix("").as_posix() for path in RENDERED.rglob("*.yaml")
]
CELLS = matrix.load(listing.MATRICES / "twin_all_tasks.yaml").cells


def test_every_task_is_run_once_by_hift_for_a_few_steps_on_its_twin():
    assert Counter(cell.task for cell in CELLS) == Counter(GOLDEN)
    for cell in CELLS:
        (spec,) = cell.runs()
        assert (spec.strategy, spec.data) == ("hift", "twin")
        assert spec.max_steps <= 5 and spec.eval_examples <= 8


def test_every_kind_of_tokenizer_takes_part():
    kinds = {name: twin.training for name, twin in twins.TWINS.items()}
    assert {kinds[cell.model] for cell in CELLS} == set(kinds.values())


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.task)
def test_the_model_can_do_the_task(cell):
    head = base.adapter(base.load(cell.task)).head
    check_head(registry.facts(registry.source(cell.model)), head)
