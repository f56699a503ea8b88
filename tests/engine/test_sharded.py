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

from benchmark.engine import HiFT
from benchmark.engine.sharded import full_state_dict

FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)
SETTINGS = {"lr": 1e-2, "weight_decay": 0.1}


def adamw(parameters):
    return torch.optim.AdamW(parameters, **SETTINGS)


def sharded(seed=0, **policy):
    """As a user shards: each block, then the rest. 18 words, so that shards are even."""
    model = tiny(seed=seed, words=18)
    for block in model.blocks:
        fully_shard(block, **policy)
    return fully_shard(model, **policy)


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


def _save_or_resume(rank, path, part):
    model = sharded(seed=0 if part != "rest" else 7)
    optimizer = HiFT(model, "adamw", order="random", seed=2, **SETTINGS)
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


def test_resuming_mid_sweep_from_gathered_state_ends_with_the_same_bytes(ranks, tmp_path):
    path = str(tmp_path / "full.pt")
    whole = ranks(_save_or_resume, path, "all")
    ranks(_save_or_resume, path, "first")
    resumed = ranks(_save_or_resume, path, "rest")
    for a, b in zip(whole, resumed, strict=True):
        assert all(torch.equal(a[n], b[n]) for n in a)

    # and in one process, which then does both ranks' work
    model = tiny(seed=5, words=18)
    optimizer = HiFT(model, "adamw", order="random", seed=2, **SETTINGS)
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    train(model, optimizer, batches(24)[16:], accumulate=2)
    assert apart(whole, model) < 1e-6


def _masters(rank):
    HiFT(sharded(), "adamw", master="all", low_dtype=torch.bfloat16, **SETTINGS)


def _importance(rank):
    HiFT(sharded(), "adamw", order="importance", **SETTINGS)


@pytest.mark.parametrize(
    ("settings", "said"), [(_masters, "MixedPrecisionPolicy"), (_importance, "whole gradients")]
)
def test_what_shards_cannot_do_is_refused(ranks, settings, said):
    for answer in ranks.attempt(settings):
        assert isinstance(answer, Failure) and said in answer.message
