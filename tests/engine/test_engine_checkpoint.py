"""Checkpoints: a run killed anywhere ends with the same bytes; state moves across settings."""

import random
import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import resumable_run
import torch
from forks import FORKS
from reference import batches, loss_of, same_weights, tiny, train

from benchmark.engine import HiFT
from benchmark.engine.checkpoint import load, save
from benchmark.errors import UserError


def _start(folder: Path, steps: int, kind: str) -> tuple[BaseProcess, Connection]:
    """The run, and what says how far its checkpoint is; that ends (EOFError) when the run does."""
    received, sent = FORKS.Pipe(duplex=False)
    run = FORKS.Process(target=resumable_run.main, args=(folder, steps, sent, kind))
    run.start()
    sent.close()
    return run, received


def _finish(folder: Path, steps: int, kind: str) -> dict:
    """What the run has at its end."""
    run, _ = _start(folder, steps, kind)
    run.join(timeout=120)
    assert run.exitcode == 0
    return torch.load(folder / "final.pt", weights_only=True)


def _equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "kills"),
    [("ordinary", 20), ("in_backward", 8), ("streamed", 6), ("least memory", 6)],
)
def test_a_run_killed_many_times_ends_with_the_same_bytes(tmp_path, kind, kills):
    steps = 5 * kills
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    dice = random.Random(1)
    for kill in range(kills):
        run, saved = _start(broken, steps, kind)
        # a few saves further than the last time, then within a save's own duration
        for _ in range(1 + dice.randrange(steps // kills)):
            saved.recv()
        time.sleep(dice.random() * 0.01)
        run.kill()
        run.join()
        assert run.exitcode == -signal.SIGKILL
        assert not (broken / "final.pt").exists(), f"kill {kill} came too late"
    assert _equal(_finish(whole, steps, kind), _finish(broken, steps, kind))


def test_a_kill_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    model = tiny()
    optimizer = HiFT(model, "adamw", lr=1e-2)
    train(model, optimizer, batches(2))
    save(tmp_path / "c.pt", model, optimizer, extra={"at": 2})

    def broken(content, path):
        path.write_bytes(b"half a checkpoint")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "c.pt", model, optimizer, extra={"at": 3})
    assert load(tmp_path / "c.pt", model, optimizer) == {"at": 2}


@pytest.mark.parametrize("idle", ["keep", "cpu"])
@pytest.mark.parametrize("settings", [{}, {"master": "all", "low_dtype": torch.bfloat16}])
def test_mid_accumulation_with_masters_scaler_and_scheduler(tmp_path, idle, settings):
    def start(seed, idle):
        model = tiny(seed=seed)
        optimizer = HiFT(model, "adamw", lr=1e-2, idle=idle, **settings)
        return model, optimizer, optimizer.delayed_lr("linear", total_steps=12)

    data = batches(24)
    whole, optimizer, scheduler = start(0, "keep")
    train(whole, optimizer, data, accumulate=2, scheduler=scheduler)

    first, optimizer, scheduler = start(0, idle)
    train(first, optimizer, data[:10], accumulate=2, scheduler=scheduler)
    (loss_of(first, data[10]) / 2).backward()  # half of step 5
    save(tmp_path / "c.pt", first, optimizer, scheduler=scheduler)

    second, optimizer, scheduler = start(5, "cpu" if idle == "keep" else "keep")
    load(tmp_path / "c.pt", second, optimizer, scheduler=scheduler)
    assert {n for n, p in second.named_parameters() if p.requires_grad} == set(
        optimizer.active.parameters
    )
    (loss_of(second, data[11]) / 2).backward()
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
    train(second, optimizer, data[12:], accumulate=2, scheduler=scheduler)
    assert same_weights(whole, second)


def test_state_saved_without_shapes_still_loads():
    whole, second = tiny(), tiny()
    optimizer, resumed = HiFT(whole, "adamw", lr=1e-2), HiFT(second, "adamw", lr=1e-2)
    train(whole, optimizer, batches(15)[:8])
    saved = optimizer.state_dict()
    del saved["parameters"]
    resumed.load_state_dict(saved)
    second.load_state_dict(whole.state_dict())
    for model, each in ((whole, optimizer), (second, resumed)):
        train(model, each, batches(15)[8:])
    assert same_weights(whole, second)


def test_fp32_masters_go_on_under_weights_of_another_low_precision():
    """Adam's state is for the masters, which are fp32 whatever the weights are."""
    ends = []
    for dtype in (torch.bfloat16, torch.float16):
        model = tiny()
        optimizer = HiFT(model, "adamw", lr=1e-2, master="all", low_dtype=torch.bfloat16)
        train(model, optimizer, batches(8))
        other = HiFT(tiny(), "adamw", lr=1e-2, master="all", low_dtype=dtype)
        other.load_state_dict(optimizer.state_dict())
        ends.append(other.state_dict()["state"])
    assert _equal(*ends)


def test_adagrads_eager_state_is_loaded_not_made_anew():
    whole, first, second = tiny(), tiny(), tiny()
    train(whole, HiFT(whole, "adagrad", lr=1e-2), batches(15))
    optimizer = HiFT(first, "adagrad", lr=1e-2)
    train(first, optimizer, batches(15)[:8])
    resumed = HiFT(second, "adagrad", lr=1e-2)
    resumed.load_state_dict(optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    train(second, resumed, batches(15)[8:])
    assert same_weights(whole, second)


def test_loading_restores_the_random_state(tmp_path):
    model = tiny()
    optimizer = HiFT(model, "sgd", lr=1e-2)
    save(tmp_path / "c.pt", model, optimizer)
    drawn = torch.rand(3), random.random()
    load(tmp_path / "c.pt", model, optimizer)
    assert torch.equal(torch.rand(3), drawn[0]) and random.random() == drawn[1]


def test_the_checkpoint_of_another_model_changes_nothing(tmp_path):
    other = tiny(depth=5)
    save(tmp_path / "c.pt", other, HiFT(other, "sgd", lr=1e-2))
    model, untouched = tiny(), tiny()
    optimizer = HiFT(model, "sgd", lr=1e-2)
    with pytest.raises(UserError, match=r"blocks\.4"):
        load(tmp_path / "c.pt", model, optimizer)
    assert same_weights(model, untouched)
