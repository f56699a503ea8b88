"""The ledger's closed form equals live tensor bytes, at every step, for each optimizer and precision."""

import importlib.util
import itertools

import pytest
import torch
from pairs import each_pair
from reference import batches, loss_of, tiny
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmark.engine import HiFT, Ledger, find_units, make_plan
from benchmark.engine.draws import Uniform

OPTIMIZERS = {
    "adamw": {},
    "adam": {"amsgrad": True},
    "radam": {},
    "sgd": {},
    "sgdm": {},
    "adagrad": {},
    "adafactor": {},
    "rmsprop": {"momentum": 0.9, "centered": True},
    "lion": {},
}
PRECISIONS = {
    "fp32": {},
    "bf16": {},
    "mixed_hi": {"master": "all", "low_dtype": torch.bfloat16},
    "mixed_active": {"master": "active", "low_dtype": torch.float16},
}


def _live(model, optimizer) -> dict[str, int]:
    found = optimizer.state_bytes()
    return {
        "parameters": sum(p.nbytes for p in model.parameters()),
        **found["device"],
        "host_optimizer_state": found["host"]["optimizer_state"],
        "host_master": found["host"]["master"],
    }


def _follow(model, optimizer, ledger, steps: int) -> None:
    """Compare at both moments of every step; the inner moment through torch's own step hook."""
    inside: list[dict[str, int]] = []
    hook = register_optimizer_step_post_hook(
        lambda opt, *_: inside.append(_live(model, optimizer)) if opt is not optimizer else None
    )
    try:
        for step, ids in enumerate(batches(steps)):
            loss_of(model, ids).backward()
            assert _live(model, optimizer) == vars(ledger.at(step)), f"step {step}, backward"
            optimizer.step()
            assert inside.pop() == vars(ledger.at(step, "step")), f"step {step}, in the step"
            optimizer.zero_grad()
    finally:
        hook.remove()


@pytest.mark.parametrize(
    ("name", "precision", "idle"), each_pair(OPTIMIZERS, PRECISIONS, ["keep", "cpu", "drop"])
)
def test_ledger_equals_live_bytes(name, idle, precision):
    if name == "lion" and importlib.util.find_spec("lion_pytorch") is None:
        pytest.skip("lion-pytorch is not installed")
    model, settings = tiny(depth=3), PRECISIONS[precision]
    if precision == "bf16":
        model.to(torch.bfloat16)
    optimizer = HiFT(
        model, name, lr=1e-3, group_size=2, idle=idle, dwell=2, **settings, **OPTIMIZERS[name]
    )
    ledger = Ledger.of(
        model,
        optimizer.plan,
        optimizer=name,
        options=OPTIMIZERS[name],
        weight_size=4 if precision == "fp32" else 2,
        idle=idle,
        master=settings.get("master", "none"),
    )
    _follow(model, optimizer, ledger, steps=15)


@pytest.mark.parametrize("idle", ["keep", "cpu", "drop"])
@pytest.mark.parametrize("idle_master", ["keep", "cpu"])
def test_ledger_knows_where_idle_masters_wait(idle, idle_master):
    model = tiny(depth=2)
    masters = {"idle": idle, "idle_master": idle_master, "master": "all"}
    optimizer = HiFT(model, "adamw", lr=1e-3, low_dtype=torch.bfloat16, **masters)
    _follow(model, optimizer, Ledger.of(model, optimizer.plan, weight_size=2, **masters), steps=9)


EIGHT_BIT = ("adamw8bit", "adam8bit", "adagrad8bit", "rmsprop8bit", "lion8bit", "sgdm8bit")


@pytest.mark.parametrize("idle", ["keep", "cpu", "drop"])
def test_ledger_counts_state_of_eight_bits_its_scales_and_its_tables_once(idle):
    """The matrices have 8,192 numbers; the state of the smaller tensors is fp32 whatever the weights are."""
    pytest.importorskip("bitsandbytes")
    names = EIGHT_BIT if idle == "cpu" else EIGHT_BIT[:1]
    for name, precision in itertools.product(names, ("bf16", "mixed_hi")):
        model = tiny(depth=2, width=64)
        settings = PRECISIONS[precision]
        if precision == "bf16":
            model.to(torch.bfloat16)
        optimizer = HiFT(model, name, lr=1e-3, idle=idle, group_size=2, **settings)
        master = settings.get("master", "none")
        ledger = Ledger.of(
            model, optimizer.plan, optimizer=name, weight_size=2, idle=idle, master=master
        )
        _follow(model, optimizer, ledger, steps=5)


@pytest.mark.parametrize("order", ["random", "reshuffle", "sample", Uniform(2)], ids=str)
@pytest.mark.parametrize("idle", ["cpu", "drop", "reset"])
def test_ledger_follows_any_order_and_always_active_units(order, idle):
    model = tiny(depth=3)
    always = ("embeddings", "head")
    optimizer = HiFT(
        model, "adamw", lr=1e-3, order=order, idle=idle, dwell=2, seed=1, always_active=always
    )
    ledger = Ledger.of(model, optimizer.plan, idle=idle)
    _follow(model, optimizer, ledger, steps=14)


def test_the_paper_s_formula():
    """AdamW, fp32: FPFT holds 4·P, HiFT P + 3·P_max on the device (step counters aside)."""
    model = tiny()
    total = sum(p.nbytes for p in model.parameters())
    tensors = len(list(model.parameters()))
    full = Ledger.of(model, make_plan(find_units(model), group_size="all")).peak()
    assert full.device == 4 * total + 4 * tensors
    plan = make_plan(find_units(model))
    largest = max(plan.groups, key=lambda g: g.numel)
    peak = Ledger.of(model, plan).peak()
    biggest = max(len(g.parameters) for g in plan.groups)
    assert 0 <= peak.device - (total + 3 * 4 * largest.numel) <= 4 * biggest
    assert peak.host_optimizer_state > 0 and full.host_optimizer_state == 0


# figure/llama.png of the HiFT repository (shared/paper/README.md, section 3), in MB of 2^20 bytes
FIGURE = {  # optimizer: (FPFT gradients, FPFT state, HiFT gradients, HiFT state)
    "adamw": (25705.02, 51410.04, 772.03, 1544.05),
    "sgdm": (25705.02, 25705.02, 772.03, 772.03),
    "sgd": (25705.02, 0.0, 772.03, 0.0),
    "adagrad": (25705.02, 25705.02, 772.03, 772.03),
    "adafactor": (25705.02, 10.82, 772.03, 0.33),
}


@pytest.mark.parametrize("name", FIGURE)
def test_llama_7b_as_printed_by_the_authors(name):
    import transformers as T

    with torch.device("meta"):
        model = T.LlamaForCausalLM(T.LlamaConfig(vocab_size=32000))
    printed = FIGURE[name]
    for m, gradients, state in (("all", *printed[:2]), (1, *printed[2:])):
        plan = make_plan(find_units(model), group_size=m)
        ledger = Ledger.of(model, plan, optimizer=name)
        sweep = plan.schedule.sweep_steps
        largest = max(range(sweep), key=lambda s: plan.group_at(s).numel)
        peak = ledger.at(sweep + largest, "step")
        assert peak.parameters / 2**20 == pytest.approx(25705.02, abs=0.01)
        assert peak.gradients / 2**20 == pytest.approx(gradients, abs=0.01)
        assert peak.optimizer_state / 2**20 == pytest.approx(state, abs=0.02)


def test_mixed_hi_of_llama_7b_as_printed():
    """13,624.5 MB: low-precision weights plus the fp32 master of the largest group."""
    import transformers as T

    with torch.device("meta"):
        model = T.LlamaForCausalLM(T.LlamaConfig(vocab_size=32000))
    plan = make_plan(find_units(model))
    ledger = Ledger.of(model, plan, optimizer="sgd", weight_size=2, master="all")
    peak = ledger.peak()
    assert (peak.parameters + peak.master) / 2**20 == pytest.approx(13624.54, abs=0.01)
