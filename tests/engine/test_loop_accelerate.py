"""Accelerate: prepare() and accumulate() train as the loop by hand does, GradScaler's skips skip, and
save_state resumes."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState, GradientState
from loops import TOTAL, by_hand, hift
from reference import batches, loss_of, same_weights, tiny
from torch.utils.data import DataLoader

from benchmark.engine import HiFT


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    """Its state is one per process."""
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def prepared(model, data, *, engine=None, **settings):
    accelerator = Accelerator(cpu=True, **settings)
    optimizer, scheduler = hift(model, **(engine or {}))
    loader = DataLoader(data, batch_size=None)
    return accelerator, *accelerator.prepare(model, optimizer, loader, scheduler)


def train(accelerator, model, optimizer, loader, scheduler, *, clip=None):
    losses = []
    for ids in loader:
        with accelerator.accumulate(model):
            with accelerator.autocast():
                loss = loss_of(model, ids)
            losses.append(loss.item())
            accelerator.backward(loss)
            if clip is not None and accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    return losses


@pytest.mark.parametrize(
    ("accumulate", "clip", "engine"),
    [
        (1, None, {}),
        (1, 0.05, {}),
        (3, 0.05, {}),
        (3, 0.05, {"weights": "stream"}),
        (1, None, {"update": "in_backward"}),
    ],
    ids=str,
)
def test_accelerate_is_the_loop_by_hand(accumulate, clip, engine):
    data = batches(TOTAL * accumulate)
    expected, losses = by_hand(data, accumulate=accumulate, clip=clip)
    model = tiny()
    parts = prepared(model, data, engine=engine, gradient_accumulation_steps=accumulate)
    micro = train(*parts, clip=clip)
    assert same_weights(model, expected)
    steps = [micro[i : i + accumulate] for i in range(0, len(micro), accumulate)]
    assert [sum(step) / accumulate for step in steps] == losses


def test_accelerate_in_bf16_is_the_loop_by_hand():
    expected, losses = by_hand(batches(TOTAL), autocast=torch.bfloat16)
    model = tiny()
    assert train(*prepared(model, batches(TOTAL), mixed_precision="bf16")) == losses
    assert same_weights(model, expected)


def test_save_state_resumes_mid_sweep_with_the_update_inside_the_backward_pass(tmp_path):
    data, engine = batches(TOTAL), {"update": "in_backward", "piece": 300}
    first, second = (
        prepared(tiny(seed=seed), data[at:end], engine=engine)
        for seed, at, end in ((0, 0, 10), (7, 10, TOTAL))
    )
    train(*first)
    first[0].save_state(tmp_path)
    second[0].load_state(tmp_path)
    train(*second)
    assert same_weights(second[1], by_hand(data)[0])


def test_save_state_resumes_mid_sweep(tmp_path):
    data = batches(TOTAL * 2)
    expected, _ = by_hand(data, accumulate=2, clip=0.05)
    first = prepared(tiny(), data[:20], gradient_accumulation_steps=2)
    train(*first, clip=0.05)
    first[0].save_state(tmp_path)

    model = tiny(seed=7)
    second = prepared(model, data[20:], gradient_accumulation_steps=2)
    second[0].load_state(tmp_path)
    assert second[2].optimizer.position.step == 10
    train(*second, clip=0.05)
    assert same_weights(model, expected)


@pytest.mark.parametrize("settings", [{}, {"master": "all", "low_dtype": torch.float16}])
def test_a_step_that_its_scaler_skips_moves_nothing(settings):
    """Accelerate takes fp16 on a GPU only; its optimizer wrapper and torch's CPU scaler do the same."""
    Accelerator(cpu=True)
    model, clean = tiny(), tiny()
    overflows = {2, 3, 8}
    scaler, plain = (torch.amp.GradScaler("cpu", init_scale=64.0) for _ in range(2))
    wrapped = AcceleratedOptimizer(HiFT(model, "adamw", lr=1e-2, **settings), scaler=scaler)
    expected = HiFT(clean, "adamw", lr=1e-2, **settings)
    for i, ids in enumerate(batches(12)):
        scale = scaler.get_scale()
        loss = scaler.scale(loss_of(model, ids))
        (loss * torch.inf if i in overflows else loss).backward()
        wrapped.step()
        wrapped.zero_grad()
        if i not in overflows:  # the same step by torch alone
            plain.scale(loss_of(clean, ids)).backward()
            plain.step(expected)
            expected.zero_grad()
        assert scaler.get_scale() == scale / (2 if i in overflows else 1)
        plain.update(scaler.get_scale())
        assert same_weights(model, clean)
    assert wrapped.optimizer.position.step == 9
