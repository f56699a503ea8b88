"""Data parallel on two gloo ranks: what one process does with the global batch, active group's bytes only."""

import pytest
import torch
import torch.distributed as dist
from ranks import Failure, Traffic, apart, weights
from reference import Tiny, batches, loss_of, tiny, train, written_out
from torch.utils.checkpoint import checkpoint

from benchmark.engine import HiFT
from benchmark.engine.checkpoint import load, save
from benchmark.engine.distributed import synchronise


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1)


def hift(model, **settings):
    return HiFT(model, "adamw", lr=1e-2, weight_decay=0.1, **settings)


# --- the same training as in one process ----------------------------------------------------------


def _train_half(rank, settings, clip, steps):
    """Each rank its own batch of every pair."""
    model = tiny()
    optimizer = hift(model, **settings)
    synchronise(optimizer, model)
    train(model, optimizer, batches(2 * steps)[rank::2], clip=clip)
    return weights(model)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("order", ["bottom2up", "random"])
def test_two_ranks_are_one_process_bit_for_bit(ranks, order, clip):
    """Against the written-out loop that accumulates both ranks' batches: halves add up exactly."""
    model = tiny()
    settings = {"group_size": 2, "order": order, "seed": 1, "dwell": 2}
    groups = [list(g.parameters) for g in hift(tiny(), **settings).groups]
    sequence = [hift(tiny(), **settings).plan.group_at(s).index for s in range(9)]
    expected = written_out(model, groups, sequence, adamw, batches(18), accumulate=2, clip=clip)
    answers = ranks(_train_half, settings, clip, 9)
    assert apart(answers, expected) == 0


def test_two_ranks_are_one_process_with_the_global_batch(ranks):
    """One batch of six rows against two of three: the mean is summed in another order, so 1e-6."""
    model = tiny()
    together = [torch.cat(pair) for pair in zip(batches(18)[::2], batches(18)[1::2], strict=True)]
    train(model, hift(model), together)
    assert apart(ranks(_train_half, {}, None, 9), model) < 1e-6


def _train_accumulating(rank, quiet, clip, steps, accumulate):
    model = tiny()
    optimizer = hift(model)
    sync = synchronise(optimizer, model)
    data = batches(2 * steps * accumulate)[rank::2]
    sent = []
    for step in range(steps):
        expected = optimizer.trainable_numel * 4, len(optimizer.active.parameters)
        with Traffic() as traffic:
            for ids in data[step * accumulate : (step + 1) * accumulate - 1]:
                if quiet:
                    with sync.no_sync():
                        (loss_of(model, ids) / accumulate).backward()
                else:
                    (loss_of(model, ids) / accumulate).backward()
            last = data[(step + 1) * accumulate - 1]
            (loss_of(model, last) / accumulate).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
        sent.append(((traffic.gradients, traffic.rest), expected))
    return weights(model), sent


@pytest.mark.parametrize("quiet", [True, False])
def test_accumulation_averages_before_clipping_and_sends_the_active_group_alone(ranks, quiet):
    """Three micro-batches a step, in no_sync() or not: only the traffic differs. 1e-6, as sums of
    six micro-batches are taken in another order."""
    expected = written_out(
        tiny(), tiny().unit_names(), [*range(6)] * 2, adamw, batches(72), accumulate=6, clip=0.05
    )
    answers = ranks(_train_accumulating, quiet, 0.05, 12, 3)
    assert apart([a for a, _ in answers], expected) < 1e-6
    times = 1 if quiet else 3
    for _, sent in answers:
        for (gradients, rest), (group_bytes, tensors) in sent:
            assert gradients == times * group_bytes
            assert rest == times * tensors  # one byte each: has any rank a gradient for it?


def _watch_two_passes(rank, bucket):
    """The order of sums and whole gradients in a backward pass of the head and the block below it, after one
    in no_sync(); the gradients, those that this rank has by itself, and the bytes sent."""
    model, data, events = tiny(), batches(4)[rank::2], []
    optimizer = hift(model, group_size=2, order="top2down")
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    alone = torch.autograd.grad(sum(loss_of(model, ids) for ids in data), list(named.values()))
    sync = synchronise(optimizer, model, bucket=bucket)
    with sync.no_sync():
        loss_of(model, data[0]).backward()
    for parameter in named.values():
        parameter.register_post_accumulate_grad_hook(lambda p: events.append("whole"))
    real = dist.all_reduce

    def noted(tensor, *args, **kwargs):
        events.append("sum" if tensor.is_floating_point() else "flags")
        return real(tensor, *args, **kwargs)

    dist.all_reduce = noted
    try:
        loss_of(model, data[1]).backward()
    finally:
        dist.all_reduce = real
    return (
        events,
        {n: p.grad for n, p in named.items()},
        dict(zip(named, alone, strict=True)),
        sync.sent,
    )


def test_sums_begin_while_the_backward_pass_runs(ranks):
    """Each gradient by itself, or neighbours together: 1 KiB holds no two of the three matrices."""
    size = sum(g.nbytes for g in ranks(_watch_two_passes, 1)[0][1].values())
    averages = []
    for bucket, sums in ((1, 9), (1 << 10, 3)):
        (events, averaged, mine, sent), (_, other, theirs, _) = ranks(_watch_two_passes, bucket)
        assert events.count("whole") == 9 and events.count("sum") == sums
        assert events.index("sum") <= 3, "of the head, before most gradients of the block are there"
        assert events[-1] == "flags" and sent == size + 9
        for name, average in averaged.items():
            assert torch.equal(average, other[name])
            assert (average - (mine[name] + theirs[name]) / 2).abs().max() < 1e-6
        averages.append(averaged)
    assert all(torch.equal(average, averages[1][n]) for n, average in averages[0].items())


# --- a gradient that is missing, infinite, or low-precision ---------------------------------------


class Sometimes(Tiny):
    """Uses its head's bias on one rank, and never one of its norms."""

    def __init__(self) -> None:
        super().__init__(depth=2)
        self.bias = torch.nn.Parameter(torch.full((17,), 0.1))
        self.never = torch.nn.LayerNorm(8)
        self.use = True

    def forward(self, ids):
        return super().forward(ids) + (self.bias if self.use else 0)


def _sometimes() -> Sometimes:
    torch.manual_seed(0)
    return Sometimes()


def _train_with_missing_gradients(rank, bucket):
    model = _sometimes()
    model.use = rank == 1
    optimizer = hift(model)
    synchronise(optimizer, model, bucket=bucket)
    train(model, optimizer, batches(16)[rank::2])
    return weights(model)


@pytest.mark.parametrize("bucket", [1, 1 << 20])
def test_a_gradient_that_one_rank_lacks_counts_as_zero_and_one_that_all_lack_stays_away(
    ranks, bucket
):
    model = _sometimes()
    optimizer = hift(model)
    data = batches(16)
    for even, odd in zip(data[::2], data[1::2], strict=True):
        for ids, use in ((even, False), (odd, True)):
            model.use = use
            (loss_of(model, ids) / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
    answers = ranks(_train_with_missing_gradients, bucket)
    assert apart(answers, model) == 0
    assert torch.equal(answers[0]["never.weight"], torch.ones(8))  # weight decay would move it


def _overflow_on_rank_0(rank, settings):
    model = tiny()
    optimizer = hift(model, **settings)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    synchronise(optimizer, model)
    positions, scales = [], []
    for i, ids in enumerate(batches(6)):
        loss = scaler.scale(loss_of(model, ids))
        (loss * torch.inf if (i, rank) == (2, 0) else loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        positions.append(optimizer.position.step)
        scales.append(scaler.get_scale())
    return positions, scales, weights(model)


@pytest.mark.parametrize("settings", [{}, {"master": "all", "low_dtype": torch.float16}])
def test_an_overflow_on_one_rank_skips_the_step_on_both(ranks, settings):
    answers = ranks(_overflow_on_rank_0, settings)
    for positions, scales, end in answers:
        assert positions == [1, 2, 2, 3, 4, 5]
        assert scales == [64.0, 64.0, 32.0, 32.0, 32.0, 32.0]
        assert all(torch.isfinite(w).all() for w in end.values())
    assert all(torch.equal(answers[0][2][n], w) for n, w in answers[1][2].items())


def test_recomputed_blocks_change_nothing(ranks):
    """The backward pass then runs forward passes inside it; the average comes once all are done."""
    expected = written_out(
        tiny(), tiny().unit_names(), [*range(6), 0, 1, 2], adamw, batches(18), accumulate=2
    )
    answers = ranks(_train_half, {"checkpointing": "active_path"}, None, 9)
    assert apart(answers, expected) == 0


def _train_past_a_failed_backward(rank):
    model = tiny()
    optimizer = hift(model, group_size=2, order="top2down")
    synchronise(optimizer, model, bucket=1)

    def fail(gradient):  # of the last block's output: the head above it has its gradients already
        raise ArithmeticError

    handle = model.blocks[3].register_forward_hook(
        lambda m, i, out: out.register_hook(fail) and None
    )
    with pytest.raises(ArithmeticError):
        loss_of(model, batches(1)[0]).backward()
    handle.remove()
    optimizer.zero_grad()
    train(model, optimizer, batches(6)[rank::2])
    return weights(model)


def test_a_backward_that_failed_leaves_the_next_one_synchronised(ranks):
    """As when a loop catches out of memory and takes the next batch."""
    model = tiny()
    train(model, hift(model, group_size=2, order="top2down"), batches(6), accumulate=2)
    assert apart(ranks(_train_past_a_failed_backward), model) == 0


class Shared(Tiny):
    """The same block twice, each time recomputed by a backward pass inside the other."""

    def forward(self, ids):
        x = self.tokens(ids)
        for _ in range(2):
            x = checkpoint(self.blocks[0], x, use_reentrant=True)
        return self.out(self.norm(x))


def _recompute_a_shared_block(rank, bucket):
    torch.manual_seed(0)
    model = Shared(depth=1)
    optimizer = hift(model, group_size="all")
    synchronise(optimizer, model, bucket=bucket)
    loss_of(model, batches(2)[rank]).backward()
    return {n: p.grad for n, p in model.named_parameters()}


def test_a_gradient_may_grow_until_its_sum_begins(ranks):
    for answer in ranks.attempt(_recompute_a_shared_block, 1):
        assert isinstance(answer, Failure) and "use_reentrant=False" in answer.message
    torch.manual_seed(0)
    model = Shared(depth=1)
    for ids in batches(2):
        (loss_of(model, ids) / 2).backward()
    for averages in ranks(_recompute_a_shared_block, 1 << 20):  # one bucket of all, which ends last
        for name, parameter in model.named_parameters():
            assert (
                (averages[name] is None) == (parameter.grad is None) == (name == "positions.weight")
            )
            if parameter.grad is not None:
                assert (averages[name] - parameter.grad).abs().max() < 1e-6


MIXED_HI = {"master": "all", "low_dtype": torch.bfloat16}


def test_mixed_hi_averages_the_low_precision_gradients(ranks):
    """Halving is exact in bf16 and the sum rounds as accumulation in one process does."""
    model = tiny()
    train(model, hift(model, **MIXED_HI), batches(18), accumulate=2)
    assert apart(ranks(_train_half, MIXED_HI, None, 9), model) == 0


def _save_or_resume(rank, folder, part):
    """part: all 12 steps, or the first 4 and a half, or the rest from what the first part saved."""
    model = tiny(seed=0 if part != "rest" else 7)
    optimizer = hift(model, order="random", seed=2)
    scheduler = optimizer.delayed_lr("linear", total_steps=12)
    path = f"{folder}/rank{rank}.pt"
    if part == "rest":
        load(path, model, optimizer, scheduler=scheduler)
    sync = synchronise(optimizer, model)
    data = batches(48)[rank::2]
    start, end = {"all": (0, 24), "first": (0, 9), "rest": (9, 24)}[part]
    for micro in range(start, end):
        if micro % 2 == 0:
            with sync.no_sync():
                (loss_of(model, data[micro]) / 2).backward()
            continue
        (loss_of(model, data[micro]) / 2).backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    save(path, model, optimizer, scheduler=scheduler)
    return weights(model)


def test_resuming_mid_sweep_and_mid_accumulation_ends_with_the_same_bytes(ranks, tmp_path):
    whole = ranks(_save_or_resume, str(tmp_path), "all")
    ranks(_save_or_resume, str(tmp_path), "first")
    resumed = ranks(_save_or_resume, str(tmp_path), "rest")
    for a, b in zip(whole, resumed, strict=True):
        assert all(torch.equal(a[n], b[n]) for n in a)
