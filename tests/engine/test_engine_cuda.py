"""On a CUDA device: offload changes where state waits, never what is computed, and never waits."""

import pytest
import torch
from reference import batches, loss_of, same_weights, tiny
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from benchmark.engine import HiFT, Ledger, keep_on_host, lower
from benchmark.engine.checkpoint import load, save
from benchmark.engine.pinned import pinned_like
from benchmark.engine.sharded import full_state_dict

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
SETTINGS = {
    "fp32": {},
    "fused": {"fused": True},
    "mixed_hi": {"master": "all", "low_dtype": torch.bfloat16},
    "mixed": {"master": "all", "low_dtype": torch.bfloat16, "idle_master": "keep"},
}


def _start(idle: str, **settings):
    model = tiny(depth=6, width=256, words=1000).cuda()
    data = [ids.cuda() for ids in batches(24, words=1000)]
    return model, HiFT(model, "adamw", lr=1e-3, idle=idle, **settings), data


def _step(model, optimizer, ids) -> None:
    loss_of(model, ids).backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("precision", SETTINGS)
def test_offloading_gives_the_same_weights(precision):
    ends = []
    for idle in ("keep", "cpu"):
        model, optimizer, data = _start(idle, **SETTINGS[precision])
        for ids in data:
            _step(model, optimizer, ids)
        ends.append(model)
    assert same_weights(*ends)


@pytest.mark.parametrize("precision", ["fp32", "mixed_hi"])
def test_no_step_synchronises_once_buffers_exist(precision):
    model, optimizer, data = _start("cpu", **SETTINGS[precision])
    for ids in data[:16]:
        _step(model, optimizer, ids)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for ids in data[16:]:
            _step(model, optimizer, ids)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_host_is_allocated_once_and_the_device_holds_the_active_group():
    model, optimizer, data = _start("cpu")
    for ids in data[:8]:
        _step(model, optimizer, ids)
    pinned = {key: t.data_ptr() for key, t in optimizer._residents.store._pinned.items()}
    ledger = Ledger.of(model, optimizer.plan)
    for step, ids in enumerate(data[8:], start=8):
        found = optimizer.state_bytes()["device"]["optimizer_state"]
        assert found == ledger.at(step).optimizer_state
        _step(model, optimizer, ids)
    after = {key: t.data_ptr() for key, t in optimizer._residents.store._pinned.items()}
    assert after == pinned


@pytest.mark.parametrize("precision", SETTINGS)
def test_a_switch_allocates_no_more_than_the_larger_of_two_groups(precision):
    model, optimizer, data = _start("cpu", **SETTINGS[precision])
    for ids in data[:16]:  # after two sweeps all state has been on the device before
        _step(model, optimizer, ids)
    inner, before = optimizer.wrapped.step, []

    def step(*args):
        inner(*args)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before.append(torch.cuda.memory_allocated())

    optimizer.wrapped.step = step
    for ids in data[16:]:
        loss_of(model, ids).backward()
        optimizer.step()
        largest = max(before.pop(), torch.cuda.memory_allocated())
        assert torch.cuda.max_memory_allocated() <= largest
        optimizer.zero_grad()


def test_what_waits_on_the_host_takes_exactly_its_bytes():
    allocator = torch.cuda.host_memory_stats().get("allocated_bytes.current", 0)
    weight = torch.randn(1100, 1003, device="cuda")
    waiting = pinned_like(weight).copy_(weight, non_blocking=True)
    torch.cuda.synchronize()
    assert waiting.is_pinned() and waiting.untyped_storage().nbytes() == weight.nbytes
    assert torch.equal(waiting.to("cuda", non_blocking=True), weight)
    assert torch.cuda.host_memory_stats().get("allocated_bytes.current", 0) == allocator


def test_a_checkpoint_moves_between_devices():
    model, optimizer, data = _start("cpu")
    for ids in data[:11]:
        _step(model, optimizer, ids)
    host = tiny(depth=6, width=256, words=1000)
    resumed = HiFT(host, "adamw", lr=1e-3)
    resumed.load_state_dict(optimizer.state_dict())
    assert {t.device.type for s in resumed.state.values() for t in s.values()} == {"cpu"}
    back = HiFT(tiny(depth=6, width=256, words=1000).cuda(), "adamw", lr=1e-3)
    back.load_state_dict(resumed.state_dict())
    for name, entry in optimizer.state_dict()["state"].items():
        for key, value in entry.items():
            assert torch.equal(value.cpu(), back.state_dict()["state"][name][key].cpu())


def test_a_model_lowered_on_the_host_never_has_all_of_its_fp32_weights_on_the_device():
    ends = []
    for lowered in (False, True):
        model = tiny(depth=6, width=256, words=1000)
        total = sum(p.numel() for p in model.parameters())
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        master = {"master": lower(model, torch.bfloat16)} if lowered else SETTINGS["mixed_hi"]
        optimizer = HiFT(model.cuda(), "adamw", lr=1e-3, **master)
        peak = torch.cuda.max_memory_allocated() - before
        assert (peak < 3.5 * total) == lowered
        assert all(t.is_pinned() for _, t in optimizer._residents.store.tensors())
        for ids in batches(16, words=1000):
            _step(model, optimizer, ids.cuda())
        ends.append(model)
        del optimizer
    assert same_weights(*ends)


def _streamed(**settings):
    """A model that was kept on the host before it moved."""
    model = tiny(depth=6, width=256, words=1000)
    keep_on_host(model)
    return model.cuda(), HiFT(model, "adamw", lr=1e-3, weights="stream", **settings)


@pytest.mark.parametrize("checkpointing", [None, "parts"])
@pytest.mark.parametrize("update", ["step", "in_backward"])
@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("precision", SETTINGS)
def test_streaming_gives_the_same_weights(precision, m, update, checkpointing):
    model, optimizer, data = _start("cpu", group_size=m, **SETTINGS[precision])
    settings = {"group_size": m, "update": update, "checkpointing": checkpointing}
    streamed, other = _streamed(**settings, **SETTINGS[precision])
    for ids in data:
        _step(model, optimizer, ids)
        _step(streamed, other, ids)
    other.release()
    assert same_weights(model, streamed)


def test_a_window_of_two_blocks_is_on_the_device_and_the_rest_is_pinned():
    before = torch.cuda.memory_allocated()
    model, optimizer = _streamed()
    block = sum(p.nbytes for p in model.blocks[0].parameters())
    rest = sum(p.nbytes for p in model.parameters()) - 6 * block
    assert torch.cuda.memory_allocated() - before < 1.1 * rest
    with torch.no_grad():
        loss_of(model, batches(1, words=1000)[0].cuda())
    assert torch.cuda.memory_allocated() - before < 1.1 * (rest + 2 * block)
    assert all(tensor.is_pinned() for tensor in optimizer.weights.on_host())
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cpu", "cuda"}


def test_no_step_of_streamed_weights_synchronises():
    model, optimizer = _streamed()
    data = [ids.cuda() for ids in batches(24, words=1000)]
    for ids in data[:16]:
        _step(model, optimizer, ids)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for ids in data[16:]:
            _step(model, optimizer, ids)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_streamed_weights_resume_within_a_step(tmp_path):
    ends = []
    for interrupted in (False, True):
        model, optimizer = _streamed()
        data = [ids.cuda() for ids in batches(16, words=1000)]
        for ids in data[:9]:
            _step(model, optimizer, ids)
        loss_of(model, data[9]).backward()
        if interrupted:
            save(tmp_path / "c.pt", model, optimizer)
            model, optimizer = _streamed()
            load(tmp_path / "c.pt", model, optimizer)
        for ids in data[10:]:
            _step(model, optimizer, ids)
        optimizer.release()
        ends.append(model)
    assert same_weights(*ends)


def test_shards_wait_in_pinned_host_memory(tmp_path):
    """FSDP2 on one rank: masters and state of idle groups are parts of DTensors, copied as any tensor."""
    dist = torch.distributed
    meeting = f"file://{tmp_path / 'meeting'}"
    dist.init_process_group("cpu:gloo,cuda:nccl", init_method=meeting, rank=0, world_size=1)
    try:
        mesh, ends = init_device_mesh("cuda", (1,)), []
        for idle in ("keep", "cpu"):
            model = tiny(depth=6, width=256, words=1000)
            master = lower(model, torch.bfloat16)
            fully_shard(model.cuda(), mesh=mesh)
            optimizer = HiFT(model, "adamw", lr=1e-3, idle=idle, master=master)
            for ids in batches(24, words=1000):
                _step(model, optimizer, ids.cuda())
            waiting = [tensor for _, tensor in optimizer._residents.store.tensors()]
            assert all(tensor.is_pinned() == (idle == "cpu") for tensor in waiting if tensor.ndim)
            gathered = full_state_dict(optimizer)["state"]
            assert all(entry["master"].is_cpu for entry in gathered.values())
            ends.append({name: p.full_tensor() for name, p in model.named_parameters()})
    finally:
        dist.destroy_process_group()
    assert all(torch.equal(end, ends[1][name]) for name, end in ends[0].items())
