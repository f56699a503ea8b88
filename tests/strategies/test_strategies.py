"""The contract of every strategy on an encoder and a decoder: what it prepares to train moves, and no more.

All of it is read from the class, so that a new strategy is tested by its line in STRATEGIES.
"""

import copy
import re

import pytest
import torch
from factories import make_spec, make_strategy

from benchmark.errors import UserError
from benchmark.strategies import STRATEGIES, options_of, strategy_class

STEPS = 12  # two sweeps of the twins' six units
RATES = {"intrinsic": 1e-3}
"""Learning rates of those that learn at another than 1e-2."""
HEADS = {"tiny-bert": "classifier.", "tiny-gpt2": "score."}


def zero_by_construction(name):
    """A bias added to every key shifts all scores of a query alike, which the softmax does not see."""
    return name.endswith("key.bias")


def prepared_or_skipped(prepare, model):
    """A copy of the model, prepared. Skips the test where the strategy refuses it (peft has no OFT of
    GPT-2)."""
    try:
        return prepare(copy.deepcopy(model))
    except UserError as refused:
        pytest.skip(str(refused))


def outputs(model, batch):
    with torch.no_grad():
        return model.eval()(**batch).logits


@pytest.fixture(scope="module", params=[n for n in STRATEGIES if strategy_class(n).trains])
def trained(request, loaded):
    """A strategy taken through STEPS steps; what each step's gradients were of, and what moved."""
    name, model, batch = loaded
    # turns of one step, so that the few steps have many turns
    options = {"dwell": 1} if "dwell" in options_of(request.param).model_fields else {}
    spec = make_spec(
        **{"strategy": request.param, "model": name, "options": options},
        **{"lr": RATES.get(request.param, 1e-2), "epochs": None, "max_steps": STEPS},
    )
    strategy = make_strategy(spec)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    pretrained = outputs(model, batch)
    model = prepared_or_skipped(strategy.prepare, model)
    same_outputs = torch.allclose(outputs(model, batch), pretrained, atol=1e-5)
    model.train()
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    optimizer, scheduler = strategy.optimizer(model, STEPS)
    losses, with_gradient, numbers = [], [], []
    for _ in range(STEPS):
        loss = strategy.loss(model, lambda: model(**batch).loss)
        loss.backward()
        update = strategy.coming_update(model, optimizer)
        updated = {id(p) for p in update.parameters}
        numbers.append(update.numel)
        with_gradient.append({n for n, p in model.named_parameters() if id(p) in updated})
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, start[n])}
    return {
        "strategy": request.param,
        "head": HEADS[name],
        "before": before,
        "same_outputs": same_outputs,
        "model": model,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "losses": losses,
        "trainable": trainable,
        "with_gradient": with_gradient,
        "numbers": numbers,
        "moved": moved,
    }


@pytest.mark.sparse
def test_it_trains(trained):
    losses = trained["losses"]
    assert all(loss == loss and loss < 10 for loss in losses)
    assert min(losses[-3:]) < losses[0], "one batch is learnt by heart"


@pytest.mark.sparse
def test_optimizer_and_scheduler_are_torchs(trained):
    assert isinstance(trained["optimizer"], torch.optim.Optimizer)
    assert isinstance(trained["scheduler"], torch.optim.lr_scheduler.LRScheduler)
    assert trained["optimizer"].param_groups[0]["lr"] == pytest.approx(0.0), "linear to its end"


@pytest.mark.sparse
def test_a_step_that_calls_the_loss_itself_is_the_same_step(loaded, trained):
    """Lightning hands `optimizer.step` a closure of the forward and the backward pass."""
    name, model, batch = loaded
    ends = []
    for inside in (False, True):
        spec = make_spec(strategy=trained["strategy"], model=name, lr=1e-3)
        strategy = make_strategy(spec)
        torch.manual_seed(2)
        copied = strategy.prepare(copy.deepcopy(model)).train()
        optimizer, scheduler = strategy.optimizer(copied, STEPS)

        def closure(strategy=strategy, copied=copied, optimizer=optimizer):
            loss = strategy.loss(copied, lambda: copied(**batch).loss)
            optimizer.zero_grad()
            loss.backward()
            return loss

        for _ in range(2):
            if inside:
                assert optimizer.step(closure).item() > 0
            else:
                closure()
                optimizer.step()
            scheduler.step()
        ends.append(list(copied.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.sparse
def test_only_what_had_a_gradient_moved(trained):
    seen = set().union(*trained["with_gradient"])
    assert trained["moved"] <= seen
    assert all(zero_by_construction(name) for name in seen - trained["moved"])


@pytest.mark.sparse
def test_each_sweep_trains_once_what_the_strategy_prepared_to_train(trained):
    """A sweep is one step, but for an optimizer whose groups take turns. Where chance draws the groups, a
    step trains a part, and steps differ. An optimizer that says it trains fewer numbers may leave tensors
    out."""
    plan = getattr(trained["optimizer"], "plan", None)
    sweep = plan.schedule.sweep_steps if plan else 1
    steps = trained["with_gradient"]
    if plan and plan.schedule.drawn:
        assert all(found and found < trained["trainable"] for found in steps)
        assert len(set(map(frozenset, steps))) > 1
        return
    sizes = {name: p.numel() for name, p in trained["model"].named_parameters()}
    if not plan and min(trained["numbers"]) < sum(sizes[name] for name in trained["trainable"]):
        assert steps[-1] and all(found <= trained["trainable"] for found in steps)
        return
    for start in range(0, STEPS - sweep + 1, sweep):
        names = [name for found in steps[start : start + sweep] for name in found]
        assert len(names) == len(set(names)) and set(names) == trained["trainable"]


@pytest.mark.sparse
def test_nothing_else_moves(trained):
    frozen = {n for n, _ in trained["model"].named_parameters()} - trained["trainable"]
    assert not frozen & trained["moved"]


@pytest.mark.sparse
def test_pretrained_values_are_what_training_starts_from(trained):
    """A method that splits a matrix, as PiSSA, keeps the outputs; one that adds to the input keeps the
    weights."""
    if trained["same_outputs"]:
        return
    frozen = {n for n, _ in trained["model"].named_parameters()} - trained["trainable"]
    for name, parameter in trained["model"].named_parameters():
        loaded = name.removeprefix("base_model.model.").replace(".base_layer", "")
        if name in frozen and loaded in trained["before"]:
            assert torch.equal(parameter, trained["before"][loaded])


def of_full(everything, head):
    return everything


def of_head(everything, head):
    return {name for name in everything if name.startswith(head)}


def of_peft(mark):
    def said(everything, head):
        found = {name for name in everything if mark in name or "modules_to_save" in name}
        assert {mark in name for name in found} == {True, False}
        return found

    return said


def of_misa(everything, head):
    blocks = {name for name in everything if ".layer." in name or ".h." in name}
    vectors = {name for name in blocks if re.search(r"bias$|\.ln_|LayerNorm", name)}
    embeddings = {name for name in everything if re.search(r"embeddings|\.wte|\.wpe", name)}
    return everything - vectors - embeddings


def of_biases(everything, head):
    return {name for name in everything if name.endswith("bias") or name.startswith(head)}


def of_added(*marks):
    return lambda everything, head: {
        name for name in everything if name.startswith(head) or any(m in name for m in marks)
    }


SAID = {
    **dict.fromkeys(("full", "hift", "badam", "hft", "lisa", "lisa_keep"), of_full),
    **dict.fromkeys(("llrd", "reinit_top", "intrinsic", "lt_sft", "greentrainer"), of_full),
    "head": of_head,
    "misa": of_misa,
    "bitfit": of_biases,
    **dict.fromkeys(("prompt", "ptuning", "prefix", "dept"), of_added(".prompt_encoder.")),
    **dict.fromkeys(
        ("houlsby", "pfeiffer", "parallel_adapter", "compacter"), of_added(".adapter.")
    ),
    "lofit": of_added(".lofit."),
    "mam": of_added(".adapter.", ".prompt_encoder."),
    **dict.fromkeys(("lora", "dora", "rslora", "pissa", "adalora", "qlora"), of_peft("lora_")),
    "vera": of_peft("vera_lambda_"),
    "ia3": of_peft("ia3_l"),
    "oft": of_peft("oft_R"),
    "ln_tuning": of_peft("ln_tuning_layers"),
    "mezo": of_full,
    "lomo": of_full,
    "adalomo": of_full,
    "galore": of_full,
    "apollo": of_full,
    "apollo_mini": of_full,
    "adam_mini": of_full,
    "muon": of_full,
    "mft": of_full,
}
"""What these train, in words of their own; a strategy that is not here keeps the contract alone."""


@pytest.mark.sparse
def test_what_trains_is_what_the_paper_of_the_strategy_says(trained):
    expected = SAID.get(trained["strategy"])
    if expected is None:
        pytest.skip("the contract alone")
    everything = {name for name, _ in trained["model"].named_parameters()}
    assert trained["trainable"] == expected(everything, trained["head"])


@pytest.mark.sparse
@pytest.mark.parametrize(
    "name",
    [n for n in STRATEGIES if "bf16_weights" in strategy_class(n).precisions and n != "none"],
)
def test_bf16_weights_are_bf16_and_what_trains_beside_frozen_ones_is_fp32(loaded, name):
    model_name, model, batch = loaded
    strategy = make_strategy(make_spec(strategy=name, model=model_name, precision="bf16_weights"))
    prepared = prepared_or_skipped(strategy.prepared, model)
    frozen = {p.dtype for p in prepared.parameters() if not p.requires_grad}
    trained = {p.dtype for p in prepared.parameters() if p.requires_grad}
    assert frozen <= {torch.bfloat16}
    assert trained == {torch.float32 if frozen else torch.bfloat16}
    optimizer, _ = strategy.optimizer(prepared, STEPS)
    with torch.autocast("cpu", torch.bfloat16):
        loss = strategy.loss(prepared, lambda: prepared(**batch).loss)
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
