"""Streamed weights: where they are, how many blocks at once, and the bytes that move."""

import pytest
import torch
from reference import Tiny, batches, loss_of, same_weights, tiny, train
from streams import MASTERS, both
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from benchmark.engine import HiFT, keep_on_host, stream_of


@pytest.mark.parametrize(("checkpointing", "recomputed"), [(None, 0), ("boundaries", 1)])
def test_a_block_computes_twice_only_if_it_recomputes(checkpointing, recomputed):
    model = tiny(depth=5)
    HiFT(model, "sgd", lr=1e-2, checkpointing="host")  # an earlier one, which leaves its wrappers
    optimizer = HiFT(model, "sgd", lr=1e-2, weights="stream", checkpointing=checkpointing)
    calls: list[int] = []
    for i, block in enumerate(model.blocks):
        block.up.register_forward_hook(lambda *_, i=i: calls.append(i))
    for turn, ids in enumerate(batches(7)):
        calls.clear()
        train(model, optimizer, [ids])
        twice = [calls.count(i) == 2 for i in range(5)]
        assert twice == [bool(recomputed and i + 1 >= turn) for i in range(5)]
        assert len(calls) == 5 + sum(twice)


@pytest.mark.parametrize("checkpointing", [None, "boundaries"])
@pytest.mark.parametrize("m", [1, 2])
def test_never_more_blocks_than_the_window_s_are_on_the_device(m, checkpointing):
    model = tiny(depth=6, width=16)
    home = {p.untyped_storage().data_ptr() for b in model.blocks for p in b.parameters()}
    settings = {"group_size": m, "checkpointing": checkpointing}
    optimizer = HiFT(model, "adamw", lr=1e-2, weights="stream", **settings)
    one = sum(p.nbytes for p in model.blocks[0].parameters())
    seen: list[int] = []

    def look(*_):
        there = {p.untyped_storage() for b in model.blocks for p in b.parameters()}
        away = {s.data_ptr(): s.nbytes() for s in there if s.data_ptr() not in home}
        shown = [
            block
            for block in model.blocks
            if any(p.untyped_storage().data_ptr() in away for p in block.parameters())
        ]
        seen.append(len(shown))
        assert len(away) <= 2 and all(size < 1.3 * one for size in away.values())

    for block in model.blocks:
        block.down.register_forward_hook(look)
        block.up.register_full_backward_hook(look)
    for ids in batches(14):
        train(model, optimizer, [ids], before_step=look)
        look()
    assert max(seen) == 2 and len(seen) > 14 * 6
    window = sum(tensor.nbytes for tensor in optimizer.weights.on_device())
    assert 2 * one <= window < 2.6 * one
    assert optimizer.state_bytes()["host"]["weights"] == 6 * one


@pytest.mark.parametrize("order", ["bottom2up", "top2down", "random"])
@pytest.mark.parametrize(("m", "depth"), [(1, 6), (2, 7)])
@pytest.mark.parametrize(("master", "checkpointing"), [("none", None), ("all", "host")])
def test_bytes_moved_are_the_closed_form(m, depth, order, master, checkpointing):
    model = tiny(depth=depth)
    settings = {"group_size": m, "order": order, "checkpointing": checkpointing}
    settings |= MASTERS[master]
    optimizer = HiFT(model, "adamw", lr=1e-2, weights="stream", **settings)
    block = sum(p.nbytes for p in model.blocks[0].parameters())
    names = [unit.name for unit in optimizer.units]
    window, before = 2, None
    for ids in batches(2 * len(optimizer.groups)):
        updated = [name for name in optimizer.active.units if name.startswith("blocks")]
        # embeddings are below block 0, and the head above the last one
        lowest = max(0, min(map(names.index, optimizer.active.units)) - 1)
        here = 0 if before is None else max(0, window - min(before, depth - window))
        again = max(0, depth - window - lowest)
        was = optimizer.weights.moved_bytes
        train(model, optimizer, [ids])
        moved = {key: value - was[key] for key, value in optimizer.weights.moved_bytes.items()}
        assert moved["to_device"] == block * (depth - here + again)
        assert moved["to_host"] == block * len(updated)
        before = lowest


class Tied(Tiny):
    """The first two blocks share a matrix, and the head is the embeddings."""

    def __init__(self) -> None:
        super().__init__(depth=5, tied=True)
        self.blocks[1].up.weight = self.blocks[0].up.weight


def test_weights_that_blocks_share_stay_on_the_device():
    def build():
        torch.manual_seed(0)
        return Tied()

    (plain, first), (streamed, second) = both(build)
    for model, optimizer in ((plain, first), (streamed, second)):
        train(model, optimizer, batches(14))
    assert same_weights(plain, streamed)
    shared = streamed.blocks[0].up.weight
    blocks = {p for block in streamed.blocks for p in block.parameters()}
    assert second.state_bytes()["host"]["weights"] == sum(p.nbytes for p in blocks - {shared})


def test_frozen_weights_are_streamed_and_never_copied_back():
    def build():
        model = tiny(depth=5)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("norm" in name)
        return model

    (plain, first), (streamed, second) = both(build)
    for model, optimizer in ((plain, first), (streamed, second)):
        train(model, optimizer, batches(12))
    assert same_weights(plain, streamed)
    norms = sum(p.nbytes for block in streamed.blocks for p in block.norm.parameters())
    assert second.weights.moved_bytes["to_host"] == 2 * norms  # two sweeps
    assert second.state_bytes()["host"]["weights"] == sum(
        p.nbytes for block in streamed.blocks for p in block.parameters()
    )


def test_a_model_is_kept_on_the_host_before_it_has_an_optimizer():
    model, plain = tiny(depth=5), tiny(depth=5).bfloat16()
    keep_on_host(model)
    model.bfloat16()
    ids = batches(1)[0]
    assert torch.equal(model(ids), plain(ids)) and stream_of(model).on_device()
    assert {tensor.dtype for tensor in stream_of(model).on_host()} == {torch.bfloat16}
    train(model, HiFT(model, "sgd", lr=1e-1, weights="stream"), batches(7))
    train(plain, HiFT(plain, "sgd", lr=1e-1), batches(7))
    assert same_weights(model, plain)


def test_release_brings_all_weights_back():
    model, plain = tiny(depth=5), tiny(depth=5)
    kinds = [type(module) for module in model.modules()]
    optimizer = HiFT(model, "adamw", lr=1e-2, weights="stream")
    train(model, optimizer, batches(9))
    train(plain, HiFT(plain, "adamw", lr=1e-2), batches(9))
    optimizer.release()
    assert [type(module) for module in model.modules()] == kinds
    assert not stream_of(model).on_host() and same_weights(model, plain)
    assert all("weight_stream" not in vars(module) for module in model.modules())
    other = HiFT(model, "sgd", lr=1e-2, weights="stream")
    optimizer.release()  # a second time, when the blocks are another's
    assert stream_of(model) is other.weights and stream_of(model).on_host()
    other.release()
    assert not HiFT(model, "sgd", lr=1e-2).state_bytes()["host"]["weights"]


@pytest.mark.parametrize("weights", ["resident", "stream"])
def test_the_stream_outlives_its_optimizer_until_the_next_one(weights):
    model, plain = tiny(depth=5), tiny(depth=5)
    for each, kind in ((model, "stream"), (plain, "resident")):
        optimizer = HiFT(each, "sgd", lr=1e-2, weights=kind)
        train(each, optimizer, batches(4))
        del optimizer
    ids = batches(1)[0]
    assert torch.equal(model(ids), plain(ids)) and stream_of(model).on_host()
    train(model, HiFT(model, "sgd", lr=1e-2, weights=weights), batches(8))
    train(plain, HiFT(plain, "sgd", lr=1e-2), batches(8))
    assert same_weights(model, plain) and bool(stream_of(model).on_host()) == (weights == "stream")


def test_the_graph_holds_no_weights_that_are_streamed():
    """Neither those in host memory nor the window's: other blocks come there before the backward pass ends.
    The other tensors go to the hooks that were there before."""
    ends, packed = both(lambda: tiny(depth=5)), []
    for model, optimizer in ends:
        seen: list[tuple[int, ...]] = []

        def pack(tensor, seen=seen, model=model):
            seen.append(tuple(tensor.shape))
            there = {p.untyped_storage().data_ptr() for p in model.blocks.parameters()}
            if stream_of(model).on_host():
                assert tensor.untyped_storage().data_ptr() not in there
            return tensor.clone() if not isinstance(tensor, torch.nn.Parameter) else tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor.clone()):
            loss = loss_of(model, batches(1)[0])
        loss.backward()
        optimizer.step()
        packed.append(seen)
    weights = {(8, 16), (16, 8), (8,)}  # of the blocks, and of the norm above them
    resident, streamed = ([s for s in seen if s not in weights] for seen in packed)
    assert resident == streamed and len(resident) > 5 * 3
    assert same_weights(ends[0][0], ends[1][0])


def test_checkpoints_around_several_blocks_train_alike():
    ends, calls = both(lambda: tiny(depth=5)), [0]
    for model, optimizer in ends:
        first, second = model.blocks[1], model.blocks[2]
        second.up.register_forward_hook(lambda *_: calls.append(1))
        del model.blocks[1:3]
        model.blocks.insert(1, Around(first, second))
        train(model, optimizer, batches(14))
    assert same_weights(ends[0][0], ends[1][0])
    assert len(calls) == 1 + 2 * (14 + 2 * 4), (
        "the second is computed again while it or one below is active"
    )


class Around(torch.nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.blocks = torch.nn.ModuleList(blocks)

    def forward(self, x):
        return checkpoint(lambda y: self.blocks[1](self.blocks[0](y)), x, use_reentrant=False)


def test_weights_that_change_before_the_backward_pass_are_an_error_as_in_torch():
    for model, _ in both(lambda: tiny(depth=5)):
        loss = loss_of(model, batches(1)[0])
        with torch.no_grad():
            model.blocks[2].up.weight.mul_(2)
        with pytest.raises(
            RuntimeError, match=r"modified by an inplace operation.*expected version"
        ):
            loss.backward()
