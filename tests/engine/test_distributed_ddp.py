"""A model wrapped in DDP: synchronise takes its place, and nothing else lets it train unsynchronised."""

import copy

import pytest
import torch
from ranks import Failure, Traffic, apart, weights
from reference import batches, loss_of, same_weights, tiny, train
from torch.nn.parallel import DistributedDataParallel

from benchmark.engine import HiFT
from benchmark.engine.distributed import synchronise


def hift(model, **settings):
    return HiFT(model, "adamw", lr=1e-2, **settings)


def _train_unwrapped(rank, accumulate, steps):
    model = tiny()
    optimizer = hift(model)
    sync = synchronise(optimizer, model)
    data = iter(batches(2 * steps * accumulate)[rank::2])
    for _ in range(steps):
        with sync.no_sync():
            for _ in range(accumulate - 1):
                (loss_of(model, next(data)) / accumulate).backward()
        (loss_of(model, next(data)) / accumulate).backward()
        optimizer.step()
        optimizer.zero_grad()
    return weights(model)


def _train_wrapped(rank, wrap, accumulate, steps):
    """As Lightning wraps (before there is an optimizer) or as HF Trainer does (after)."""
    model, reduced = tiny(), []
    optimizer = hift(model) if wrap != "before" else None
    if wrap == "between":
        synchronise(optimizer, model)
    ddp = DistributedDataParallel(model)

    def spy(state, bucket):
        reduced.append(bucket.index())
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    ddp.register_comm_hook(None, spy)
    if optimizer is None:
        optimizer = hift(model)
    if wrap != "between":
        synchronise(optimizer, ddp)
    data = iter(batches(2 * steps * accumulate)[rank::2])
    with Traffic() as traffic:
        for _ in range(steps):
            for _ in range(accumulate - 1):
                with ddp.no_sync():
                    (loss_of(ddp, next(data)) / accumulate).backward()
            (loss_of(ddp, next(data)) / accumulate).backward()
            optimizer.step()
            optimizer.zero_grad()
    end, quiet = weights(model), len(reduced)
    optimizer.release()
    loss_of(ddp, batches(1)[0]).backward()
    return end, traffic.gradients, quiet, len(reduced)


STEPS = 12


@pytest.fixture(scope="module")
def unwrapped(ranks):
    return ranks(_train_unwrapped, 2, STEPS)


@pytest.mark.parametrize("wrap", ["before", "between", "after"])
def test_a_ddp_around_the_model_changes_nothing_and_its_no_sync_is_heeded(ranks, unwrapped, wrap):
    answers = ranks(_train_wrapped, wrap, 2, STEPS)
    size = sum(p.nbytes for p in tiny().parameters())
    for (wrapped, sent, reduced, released), expected in zip(answers, unwrapped, strict=True):
        assert all(torch.equal(wrapped[n], w) for n, w in expected.items())
        assert sent == 2 * size  # two sweeps, each parameter's gradient once in each
        assert reduced == 0  # and the wrapper itself reduced no bucket,
        assert released > 0  # which it does again once the optimizer has let go


def _step_unsynchronised(rank, wrap):
    model = tiny()
    before = copy.deepcopy(model)
    if wrap == "inside":
        HiFT(DistributedDataParallel(model), "adamw", lr=1e-2)
    ddp = DistributedDataParallel(model) if wrap == "before" else None
    optimizer = hift(model)
    if wrap == "after":
        ddp = DistributedDataParallel(model)
    for ids in batches(2):
        loss_of(ddp or model, ids).backward()
        try:
            optimizer.step()
        finally:
            assert same_weights(model, before)


@pytest.mark.parametrize("wrap", ["before", "after", "inside", None])
def test_training_that_nobody_synchronises_is_refused_before_any_weight_changes(ranks, wrap):
    for answer in ranks.attempt(_step_unsynchronised, wrap):
        assert isinstance(answer, Failure)
        assert answer.message.startswith("UserError")
        assert "unsynchronised silently; call" in answer.message
        assert "\n" not in answer.message


def _full_fine_tuning_in_ddp(rank):
    model = tiny()
    optimizer = hift(model, group_size="all")
    train(DistributedDataParallel(model), optimizer, batches(12)[rank::2])
    return weights(model)


def test_one_group_never_switches_so_a_plain_ddp_is_right(ranks):
    model = tiny()
    train(model, torch.optim.AdamW(model.parameters(), lr=1e-2), batches(12), accumulate=2)
    assert apart(ranks(_full_fine_tuning_in_ddp), model) < 1e-6


def _copied(rank):
    """An averaged copy of a model, as EMA keeps one, has nothing to do with the original's training."""
    model = tiny()
    optimizer = hift(model)
    synchronise(optimizer, model)
    ddp = DistributedDataParallel(copy.deepcopy(model).requires_grad_(True))
    loss_of(ddp, batches(2)[rank]).backward()
    assert ddp.require_backward_grad_sync is True
    return {n: p.grad for n, p in ddp.module.named_parameters()}


def test_a_copy_of_the_model_in_its_own_ddp_is_left_to_it(ranks):
    first, second = ranks(_copied)
    assert all(torch.equal(gradient, second[n]) for n, gradient in first.items())
