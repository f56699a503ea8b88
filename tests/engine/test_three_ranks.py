"""Data parallel and FSDP2 on three gloo ranks, where sums depend on the order and shards are uneven."""

import pytest
from ranks import apart, start, weights
from reference import batches, tiny, train, written_out
from test_distributed import adamw, hift
from torch.distributed.fsdp import fully_shard

from benchmark.engine.distributed import synchronise

STEPS = 9


@pytest.fixture(scope="module")
def three():
    yield from start(3)


def _trained(rank, kind):
    """Each rank its own batch of every three."""
    model = tiny()
    if kind == "fsdp2":
        for block in model.blocks:
            fully_shard(block)
        fully_shard(model)
    optimizer = hift(model, group_size=2, order="random", seed=1, dwell=2)
    if kind == "synchronised":
        synchronise(optimizer, model)
    train(model, optimizer, batches(3 * STEPS)[rank::3], clip=0.05)
    return weights(model)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["synchronised", "fsdp2"])
def test_three_ranks_are_one_process(three, kind):
    """Against the written-out loop that accumulates the batches of all ranks."""
    plan = hift(tiny(), group_size=2, order="random", seed=1, dwell=2)
    groups = [list(group.parameters) for group in plan.groups]
    sequence = [plan.plan.group_at(step).index for step in range(STEPS)]
    data = batches(3 * STEPS)
    expected = written_out(tiny(), groups, sequence, adamw, data, accumulate=3, clip=0.05)
    assert apart(three(_trained, kind), expected) < 1e-6
