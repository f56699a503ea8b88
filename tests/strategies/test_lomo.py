"""LOMO against SGD and AdaLomo against its algorithm written out, both against the package lomo-optim."""

import copy

import pytest
import torch
from factories import make_spec, make_strategy

from benchmark.engine.update import coming_update
from benchmark.errors import Unsupported
from benchmark.measure.canary import Canary, Unmoved
from benchmark.measure.optimizer_state import state_bytes
from benchmark.models import registry

STEPS, LR = 10, 1e-2


@pytest.fixture(scope="module", params=["tiny-bert", "tiny-gpt2"])
def case(request):
    """A tiny model in training mode and a batch; dropout draws the same numbers in each run."""
    torch.manual_seed(0)
    source = registry.source(request.param)
    model = registry.load_model(source, "sequence_classification", 1, num_labels=2)
    ids = torch.randint(10, 900, (4, 12))
    return model.train(), {"input_ids": ids, "labels": torch.tensor([0, 1, 1, 0])}


def train(model, batch, optimizer, scheduler, *, lost=lambda model, loss: loss.backward()):
    """STEPS steps of an ordinary loop. `lost` does the backward pass."""
    torch.manual_seed(1)
    for _ in range(STEPS):
        lost(model, model(**batch).loss)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()


def ours(case, name, **fields):
    model = copy.deepcopy(case[0])
    strategy = make_strategy(make_spec(strategy=name, lr=LR, warmup=0.2, **fields))
    train(model, case[1], *strategy.optimizer(model, STEPS))
    return list(model.parameters())


def rates():
    """The learning rate of each step, as SGD has it."""
    optimizer, scheduler = make_strategy(make_spec(lr=LR, warmup=0.2, optimizer="sgd")).optimizer(
        torch.nn.Linear(2, 2), STEPS
    )
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def equal(ours, theirs, tolerance=0.0):
    return all(
        torch.allclose(a, b, rtol=0, atol=tolerance) for a, b in zip(ours, theirs, strict=True)
    )


def real(model, parameters):
    """Those of `parameters` whose gradient is more than rounding, which AdaLomo scales up to a real one.

    The softmax is blind to a bias of all keys: BERT's own, GPT-2's within that of queries, keys and values.
    """
    names = [name for name, _ in model.named_parameters()]
    blind = ("key.bias", "c_attn.bias")
    return [p for n, p in zip(names, parameters, strict=True) if not n.endswith(blind)]


def test_lomo_is_sgd_bit_for_bit(case):
    model = copy.deepcopy(case[0])
    strategy = make_strategy(make_spec(strategy="full", optimizer="sgd", lr=LR, warmup=0.2))
    train(model, case[1], *strategy.optimizer(model, STEPS))
    assert equal(ours(case, "lomo"), model.parameters())
    assert not equal(model.parameters(), case[0].parameters())


@pytest.mark.parametrize(("clip", "decay"), [(0.01, 0.0), (None, 0.1)])
def test_lomo_clips_and_decays_as_sgd(case, clip, decay):
    """torch decays by way of the gradient, which rounds differently."""
    model = copy.deepcopy(case[0])
    strategy = make_strategy(
        make_spec(strategy="full", optimizer="sgd", lr=LR, warmup=0.2, weight_decay=decay)
    )

    def lost(model, loss):
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_value_(model.parameters(), clip)

    train(model, case[1], *strategy.optimizer(model, STEPS), lost=lost)
    found = ours(case, "lomo", options={"clip_value": clip}, weight_decay=decay)
    assert equal(found, model.parameters(), 0.0 if clip else 1e-6)
    assert not equal(found, ours(case, "lomo"), 1e-5)


@pytest.mark.parametrize("name", ["lomo", "adalomo"])
def test_the_package_with_its_own_backward_ends_at_the_same_weights(case, name, monkeypatch):
    lomo_optim = pytest.importorskip("lomo_optim")
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)  # AdaLomo's state
    model = copy.deepcopy(case[0])
    package = {"lomo": lomo_optim.Lomo, "adalomo": lomo_optim.AdaLomo}[name](model)
    steps = rates()
    torch.manual_seed(1)
    for rate in steps:
        package.fused_backward(model(**case[1]).loss, rate)
    both = ours(case, name), model.parameters()
    if name == "lomo":
        assert equal(*both)
    else:
        assert equal(*(real(model, side) for side in both), 1e-6)


def test_adalomo_is_its_algorithm(case):
    """Algorithm 1 of arXiv 2310.10195, with the state of every tensor written out."""
    model = copy.deepcopy(case[0])
    moments, steps = [None for _ in model.parameters()], rates()
    torch.manual_seed(1)
    for step, rate in enumerate(steps, start=1):
        model.zero_grad()
        model(**case[1]).loss.backward()
        beta = 1 - step**-0.8
        with torch.no_grad():
            for i, p in enumerate(model.parameters()):
                if p.grad is None:
                    continue
                square = p.grad**2 + 1e-30
                new = (square.mean(1), square.mean(0)) if p.ndim == 2 else (square,)
                old = moments[i] or [torch.zeros_like(part) for part in new]
                moments[i] = [beta * o + (1 - beta) * n for o, n in zip(old, new, strict=True)]
                v = moments[i][0]
                if p.ndim == 2:
                    v = torch.outer(v, moments[i][1]) / v.mean()
                u = p.grad / v.sqrt()
                u = u / max(1.0, float(u.square().mean().sqrt()))
                p -= rate * max(1e-3, float(p.square().mean().sqrt())) * u
    both = ours(case, "adalomo"), model.parameters()
    assert equal(*(real(model, side) for side in both), 1e-6)


def test_one_gradient_is_alive_at_a_time(case):
    model = copy.deepcopy(case[0])
    optimizer, _ = make_strategy(make_spec(strategy="lomo", lr=LR)).optimizer(model, STEPS)
    seen = []
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(
            lambda p: seen.append([q for q in model.parameters() if q.grad is not None])
        )
    model(**case[1]).loss.backward()
    assert seen and not any(seen), "each is freed by the hook before ours"
    update = coming_update(model, optimizer)
    assert {id(p) for p in update.parameters} == {
        id(p) for n, p in model.named_parameters() if p.requires_grad
    }
    assert update.gradient_bytes == max(p.nbytes for p in model.parameters())
    assert state_bytes(optimizer)["device"]["optimizer_state"] == 0


def test_adalomo_keeps_a_row_and_a_column(case):
    model = copy.deepcopy(case[0])
    optimizer, scheduler = make_strategy(make_spec(strategy="adalomo", lr=LR)).optimizer(model, 10)
    train(model, case[1], optimizer, scheduler)
    expected = sum(4 * sum(p.shape) for p in model.parameters())
    assert state_bytes(optimizer)["device"]["optimizer_state"] == expected


def test_the_canary_knows_gradients_that_are_rounding(case):
    """BERT's key biases have such gradients. A tensor with a real one that stays where it was is found."""
    model = copy.deepcopy(case[0])
    optimizer, _ = make_strategy(make_spec(strategy="lomo", lr=LR)).optimizer(model, STEPS)
    canary = Canary(model)
    biases = [p for n, p in model.named_parameters() if n.endswith("key.bias")]
    matrix = next(p for p in model.parameters() if p.ndim == 2)
    before = [(p, p.detach().clone()) for p in (*biases, matrix)]
    model(**case[1]).loss.backward()
    update = coming_update(model, optimizer)
    canary.claim(update.parameters, update.norms, update.rate)
    canary.check()
    with torch.no_grad():
        for parameter, value in before:
            parameter.copy_(value)
    with pytest.raises(Unmoved, match=r"^\S+ had gradients"):
        canary.check()
    names = {id(p): n for n, p in model.named_parameters()}
    assert canary.unmoved() == [names[id(matrix)]]


@pytest.mark.parametrize("name", ["lomo", "adalomo"])
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"accumulate": 2}, "raise batch_size"),
        ({"clip": 1.0}, "clip_value"),
        ({"precision": "fp16"}, "no precision fp16, only fp32"),
        ({"optimizer": "adam"}, "update rule of its own: leave optimizer out"),
    ],
)
def test_what_cannot_work_is_refused_with_what_does(name, fields, said):
    with pytest.raises(Unsupported, match=said):
        make_strategy(make_spec(strategy=name, **fields))
