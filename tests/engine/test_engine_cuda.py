"""On a CUDA device: offload changes where state waits, never what is computed, and never waits."""

import pytest
import torch
from reference import batches, loss_of, same_weights, tiny

from benchmark.engine import HiFT, Ledger, lower

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
SETTINGS = {
    "fp32": {},
    "fused": {"fused": True},
    "mixed_hi": {"master": "all", "low_dtype": torch.bfloat16},
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
