"""FSDP2 on two gloo ranks: fully_shard, then HiFT; the same training, the active group's bytes only."""

import pytest
import torch
import torch.distributed as dist
from ranks import Failure, apart, weights
from reference import batches, loss_of, tiny, train, written_out
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from benchmark.engine import HiFT, lower
from benchmark.engine.checkpoint import load, save
from benchmark.engine.offload import IdleStore
from benchmark.engine.sharded import full_state_dict

FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)
SETTINGS = {"lr": 1e-2, "weight_decay": 0.1}


def adamw(parameters):
    return torch.optim.AdamW(parameters, **SETTINGS)


def sharded(seed=0, **policy):
    """As a user shards: each block, then the rest. 18 words, so that shards are even."""
    return _cut(tiny(seed=seed, words=18), **policy)


def _cut(model, **policy):
    for block in model.blocks:
        fully_shard(block, **policy)
    return fully_shard(model, **policy)


def with_masters(seed=0):
    """The model with bf16 shards, and the masters that go with it."""
    model = tiny(seed=seed, words=18)
    master = lower(model, torch.bfloat16)
    return _cut(model), {"master": master}


def _train(rank, optimizer, accumulate, clip):
    model = sharded()
    optimizer = HiFT(model, optimizer, **SETTINGS)
    train(model, optimizer, batches(24 * accumulate)[rank::2], accumulate=accumulate, clip=clip)
    return weights(model)


@pytest.mark.parametrize(("accumulate", "clip"), [(1, None), (3, None), (1, 0.05)])
def test_two_shards_are_one_process(ranks, accumulate, clip):
    """Against the written-out loop over both ranks' batches. 1e-6: fully_shard sums before it halves,
    and takes the norm of each shard."""
    expected = written_out(
        tiny(words=18),
        tiny(words=18).unit_names(),
        [*range(6)] * 2,
        adamw,
        batches(24 * accumulate),
        accumulate=2 * accumulate,
        clip=clip,
    )
    assert apart(ranks(_train, "adamw", accumulate, clip), expected) < 1e-6


def _reduced_bytes(rank):
    model = sharded()
    optimizer = HiFT(model, "adamw", **SETTINGS)
    name = next(n for n in ("reduce_scatter_single", "reduce_scatter_tensor") if hasattr(dist, n))
    sent, real = [0], getattr(dist, name)

    def counted(output, input, *args, **kwargs):
        sent[0] += input.nbytes
        return real(output, input, *args, **kwargs)

    setattr(dist, name, counted)  # the name changed in torch 2.13
    steps = []
    try:
        for ids in batches(24)[rank::2]:
            sent[0] = 0
            expected = optimizer.trainable_numel * 4
            loss_of(model, ids).backward()
            steps.append((sent[0], expected))
            optimizer.step()
            optimizer.zero_grad()
    finally:
        setattr(dist, name, real)
    return steps


def test_only_the_active_groups_gradients_are_reduced(ranks):
    for steps in ranks(_reduced_bytes):
        assert len(steps) == 12
        for sent, expected in steps:
            assert sent == expected


def _live_bytes(rank):
    model = sharded()
    optimizer = HiFT(model, "adamw", **SETTINGS)
    train(model, optimizer, batches(18)[rank::2])  # a sweep and a half
    loss_of(model, batches(1)[0]).backward()
    numel = sum(p.numel() for p in model.parameters())
    return optimizer.state_bytes(), optimizer.trainable_numel, numel, len(list(model.parameters()))


def test_a_rank_counts_its_own_shards(ranks):
    for live, active, numel, tensors in ranks(_live_bytes):
        assert live["device"]["gradients"] == 4 * active // 2
        state = live["device"]["optimizer_state"] + live["host"]["optimizer_state"]
        assert state == 2 * 4 * numel // 2 + 4 * tensors  # two moments, and each tensor's step


def _bf16(rank):
    model = sharded(
        mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    )
    train(model, HiFT(model, "sgd", lr=0.1), batches(24)[rank::2])
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    return weights(model)


def test_a_mixed_precision_policy_keeps_fp32_shards(ranks):
    """Both ranks alike, and as near the fp32 run as bf16's three digits let it be."""
    answers = ranks(_bf16)
    assert all(torch.equal(w, answers[1][n]) for n, w in answers[0].items())
    model = tiny(words=18)
    train(model, HiFT(model, "sgd", lr=0.1), batches(24), accumulate=2)
    assert 0 < apart(answers, model) < 0.05 * apart(answers, tiny(words=18))


def _train_with_masters(rank, settings, moves):
    """moves: idle values are copied to the host and back, as if this CPU had memory apart from it."""
    model, masters = with_masters()
    optimizer = HiFT(model, "adamw", **{**masters, **settings, **SETTINGS})
    gone, leave, arrive = [], IdleStore._leave, IdleStore._arrive
    if moves:
        IdleStore._leave = lambda store, name, key, value: gone.append((key, value)) or value + 0
        IdleStore._arrive = lambda store, value, device: value + 0
    try:
        train(model, optimizer, batches(24)[rank::2])
    finally:
        IdleStore._leave, IdleStore._arrive = leave, arrive
    left = sum(value.nbytes for key, value in gone if key == "master")
    return weights(model), optimizer.state_bytes(), left


def test_masters_and_state_of_shards_wait_on_the_host_and_change_no_weight(ranks):
    """Mixed^Hi, against masters that stay, and against one process. Each rank moves its half of a group's
    masters."""
    total = sum(p.numel() for p in tiny(words=18).parameters())
    moved = ranks(_train_with_masters, {"idle": "cpu"}, True)
    kept = ranks(_train_with_masters, {"idle": "keep"}, False)
    for (a, held, left), (b, *_) in zip(moved, kept, strict=True):
        assert all(torch.equal(a[n], b[n]) and a[n].dtype == torch.bfloat16 for n in a)
        assert held["device"]["master"] + held["host"]["master"] == 4 * total // 2
        assert held["host"]["optimizer_state"] > 0 < held["host"]["master"]
        assert left == 2 * 4 * total // 2, "in two sweeps"

    model = tiny(words=18)
    settings = {"master": lower(model, torch.bfloat16), **SETTINGS}
    train(model, HiFT(model, "adamw", **settings), batches(24), accumulate=2)
    assert apart([a for a, *_ in moved], model) == 0


def test_masters_of_the_active_shards_alone(ranks):
    model = tiny(words=18).bfloat16()
    optimizer = HiFT(model, "adamw", master="active", **SETTINGS)
    train(model, optimizer, batches(24), accumulate=2)
    answers = ranks(_train_with_masters, {"master": "active"}, False)
    assert apart([end for end, *_ in answers], model) == 0
    assert all(not held["host"]["master"] and not left for _, held, left in answers)


def _overflow_in_one_shard(rank):
    """In the third step, one number of one rank's part of the gradients."""
    model = tiny(words=18)
    master = lower(model, torch.float16)
    optimizer = HiFT(_cut(model), "adamw", master=master, **SETTINGS)
    scaler, positions = torch.amp.GradScaler("cpu", init_scale=64.0), []
    for i, ids in enumerate(batches(6)):
        scaler.scale(loss_of(model, ids)).backward()
        if (i, rank) == (2, 0):
            gradient = next(p.grad for p in model.parameters() if p.grad is not None)
            gradient.to_local().view(-1)[0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        positions.append(optimizer.position.step)
    return positions, weights(model)


def test_an_overflow_in_one_shard_skips_the_step_on_both_ranks(ranks):
    (first, a), (second, b) = ranks(_overflow_in_one_shard)
    assert first == second == [1, 2, 2, 3, 4, 5]
    assert all(torch.equal(a[n], b[n]) and torch.isfinite(a[n]).all() for n in a)


def _save_or_resume(rank, path, part, masters):
    seed = 0 if part != "rest" else 7
    model, settings = with_masters(seed) if masters else (sharded(seed), {})
    optimizer = HiFT(model, "adamw", order="random", seed=2, **settings, **SETTINGS)
    data = batches(24)[rank::2]
    if part == "rest":
        saved = torch.load(path, weights_only=True)
        set_model_state_dict(model, saved["model"], options=StateDictOptions(full_state_dict=True))
        optimizer.load_state_dict(saved["optimizer"])
    train(model, optimizer, {"all": data, "first": data[:8], "rest": data[8:]}[part])
    saved = {
        "model": get_model_state_dict(model, options=FULL),
        "optimizer": full_state_dict(optimizer),
    }
    if part == "first" and rank == 0:
        torch.save(saved, path)
    dist.barrier()
    return weights(model)


@pytest.mark.parametrize("masters", [False, True])
def test_resuming_mid_sweep_from_gathered_state_ends_with_the_same_bytes(ranks, tmp_path, masters):
    path = str(tmp_path / "full.pt")
    whole = ranks(_save_or_resume, path, "all", masters)
    ranks(_save_or_resume, path, "first", masters)
    resumed = ranks(_save_or_resume, path, "rest", masters)
    for a, b in zip(whole, resumed, strict=True):
        assert all(torch.equal(a[n], b[n]) for n in a)

    # and in one process, which then does both ranks' work
    model = tiny(seed=5, words=18)
    settings = {"master": lower(model, torch.bfloat16)} if masters else {}
    optimizer = HiFT(model, "adamw", order="random", seed=2, **settings, **SETTINGS)
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    train(model, optimizer, batches(24)[16:], accumulate=2)
    assert apart(whole, model) < 1e-6


def _save_within_a_step(rank, path):
    """torch's AdamW, two steps and half of the third, by the engine's checkpoint; and the whole training."""
    data, ends = batches(8)[rank::2], []
    for parts in ((data,), (data[:3], data[3:])):
        for number, part in enumerate(parts):
            model = sharded(seed=number)
            optimizer = adamw(model.parameters())
            if number:
                load(path, model, optimizer)
            for i, ids in enumerate(part, start=3 * number):
                loss_of(model, ids).backward()
                if i % 2:
                    optimizer.step()
                    optimizer.zero_grad()
            save(path, model, optimizer)
            dist.barrier()
        ends.append(weights(model))
    return ends


def test_a_checkpoint_of_shards_with_gradients_is_one_of_one_process(ranks, tmp_path):
    path = tmp_path / "saved.pt"
    for whole, resumed in ranks(_save_within_a_step, path):
        assert all(torch.equal(whole[n], resumed[n]) for n in whole)
    model = tiny(seed=3, words=18)
    load(path, model, adamw(model.parameters()))
    assert all(torch.equal(resumed[n], p) for n, p in model.named_parameters())


def _masters(rank):
    HiFT(sharded(), "adamw", master="all", low_dtype=torch.bfloat16, **SETTINGS)


def _lowered_too_late(rank):
    lower(sharded(), torch.bfloat16)


def _importance(rank):
    HiFT(sharded(), "adamw", order="importance", **SETTINGS)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (_masters, "MixedPrecisionPolicy"),
        (_lowered_too_late, "before fully_shard"),
        (_importance, "whole gradients"),
    ],
)
def test_what_shards_cannot_do_is_refused(ranks, settings, said):
    for answer in ranks.attempt(settings):
        assert isinstance(answer, Failure) and said in answer.message
