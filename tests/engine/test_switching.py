"""The switch of groups, on a CPU whose host memory is made another than that of the device."""

import pytest
import torch
from reference import batches, loss_of, same_weights, tiny, train
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmark.engine import HiFT
from benchmark.engine.host import host_memory
from benchmark.engine.offload import IdleStore
from benchmark.measure.live_bytes import LiveBytes


def _copies(monkeypatch) -> None:
    """What waits is copied to the host and back, as with an accelerator."""

    def leave(store, name, key, value):
        with host_memory():
            return value.clone()

    monkeypatch.setattr(IdleStore, "_leave", leave)
    monkeypatch.setattr(IdleStore, "_arrive", lambda store, value, device: value.clone())


@pytest.mark.parametrize("masters", [{}, {"master": "all", "low_dtype": torch.bfloat16}], ids=str)
def test_the_device_never_holds_more_than_the_larger_of_two_groups(masters, monkeypatch):
    model, usual = tiny(depth=2), tiny(depth=2)
    train(usual, HiFT(usual, "adamw", lr=1e-2, **masters), batches(12))
    _copies(monkeypatch)
    optimizer = HiFT(model, "adamw", lr=1e-2, **masters)
    data = batches(12)
    train(model, optimizer, data[:4])
    states = set()
    for ids in data[4:]:
        loss_of(model, ids).backward()
        with LiveBytes(optimizer.device_tensors()) as counter:
            before = []

            def updated(each, *_, counter=counter, before=before):
                if each is optimizer.wrapped:  # the update is over, and the switch begins
                    before.append(counter.live)
                    counter.peak = counter.live

            hook = register_optimizer_step_post_hook(updated)
            optimizer.step()
            hook.remove()
        assert counter.peak <= max(*before, counter.live)
        states.add(counter.live)
        optimizer.zero_grad()
    assert len(states) > 1, "groups of several sizes"
    assert same_weights(model, usual)
