"""Every strategy of the matrix twin_all_strategies learns: its score against that of the untrained model."""

import pytest

from benchmark.matrices import listing, matrix
from benchmark.run import recipe
from benchmark.strategies import STRATEGIES

MARGIN = 0.1
"""Accuracy above the untrained model's: two standard errors of a difference on 200 rows near one half."""
LEFT_OUT = {
    "none": "it does not train",
    "mft": "it needs answers, and this task has classes",
    "mezo": "its published runs take 20,000 steps and more",
    "intrinsic": "its projection takes several times a step of full fine-tuning",
}
CELLS = {
    cell.label: cell for cell in matrix.load(listing.MATRICES / "twin_all_strategies.yaml").cells
}


def test_whatever_trains_is_in_the_matrix():
    assert CELLS.keys() == STRATEGIES.keys() - LEFT_OUT.keys()


@pytest.fixture(scope="module")
def untrained(read_once, tmp_path_factory):
    """The score of the model with its new head, after one step that changes a number by 1e-6."""
    (spec,) = CELLS["full"].runs()
    one_step = spec.model_copy(update={"max_steps": 1, "lr": 1e-6, "warmup": 0.0})
    return recipe.run(one_step, tmp_path_factory.mktemp("untrained")).scores.main


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_it_beats_the_untrained_model(name, untrained, tmp_path):
    (spec,) = CELLS[name].runs()
    assert recipe.run(spec, tmp_path).scores.main >= untrained + MARGIN
