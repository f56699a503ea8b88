"""What ranks must not do together is refused on all of them, and what they may do apart is not."""

import pytest
import torch.distributed as dist
from ranks import Failure, Traffic, apart, weights
from reference import batches, loss_of, tiny, train

from benchmark.engine import HiFT
from benchmark.engine.distributed import synchronise
from benchmark.errors import UserError


def hift(model, **settings):
    return HiFT(model, "adamw", lr=1e-2, weight_decay=0.1, **settings)


def _step_after_no_sync(rank):
    model = tiny()
    optimizer = hift(model)
    with synchronise(optimizer, model).no_sync():
        loss_of(model, batches(2)[rank]).backward()
    optimizer.step()


def test_a_step_whose_last_backward_was_in_no_sync_is_refused(ranks):
    for answer in ranks.attempt(_step_after_no_sync):
        assert isinstance(answer, Failure) and "must not be in no_sync()" in answer.message


# --- ranks that go their own way, or differ -------------------------------------------------------


def _apart_by_choice(rank):
    alone = [dist.new_group([r]) for r in range(2)][rank]
    model = tiny(seed=rank)
    optimizer = hift(model)
    synchronise(optimizer, model, process_group=alone)
    with Traffic() as traffic:
        train(model, optimizer, batches(7))
    assert traffic.gradients == 0
    return weights(model)


def test_ranks_may_train_apart_when_they_say_so(ranks):
    for rank, answer in enumerate(ranks(_apart_by_choice)):
        model = tiny(seed=rank)
        train(model, hift(model), batches(7))
        assert apart([answer], model) == 0


def _differ(rank, what):
    model = tiny(seed=rank if what == "weights" else 0)
    optimizer = hift(model, order="random", seed=rank if what == "order" else 0)
    if what == "position" and rank:
        optimizer.load_state_dict({**optimizer.state_dict(), "step": 1})
    synchronise(optimizer, model)


@pytest.mark.parametrize(
    ("what", "named"),
    [("weights", '"tokens.weight"'), ("order", "its schedule"), ("position", "its position")],
)
def test_ranks_that_differ_are_refused_on_all_of_them(ranks, what, named):
    for answer in ranks.attempt(_differ, what):
        assert isinstance(answer, Failure) and answer.message.startswith("UserError")
        assert f"rank 1 differs from rank 0 in {named}" in answer.message


def test_synchronise_without_a_process_group_is_refused():
    model = tiny()
    with pytest.raises(UserError, match="init_process_group"):
        synchronise(hift(model), model)


def _another_model(rank):
    synchronise(hift(tiny()), tiny())


def test_another_model_is_refused(ranks):
    for answer in ranks.attempt(_another_model):
        assert "parameters of another model" in answer.message
