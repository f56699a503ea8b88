"""Gradients by rows against those of autograd, and what is alive while they are made."""

import copy
import pickle

import families
import pytest
import torch
from reference import batches, loss_of, tiny, train
from torch import nn
from transformers.pytorch_utils import Conv1D

from benchmark.engine import HiFT, by_rows
from benchmark.engine.update import coming_update
from benchmark.errors import UserError
from benchmark.measure.live_bytes import LiveBytes
from tasks import chunked

INSIDE = {"update": "in_backward"}
STEP = 3
"""Rows that a collector asks for at a time."""


class Collector:
    """Takes gradients as an optimizer does, but keeps them."""

    def __init__(self, numbers: dict[str, int]) -> None:
        self.numbers = numbers  # name -> rows of the parameter
        self.found: dict[str, torch.Tensor] = {}

    def take_rows(self, name, make):
        starts = range(0, self.numbers[name], STEP)
        self.found[name] = torch.cat(
            [make(start, min(start + STEP, self.numbers[name])) for start in starts]
        )


def wrapped(model: nn.Module) -> tuple[nn.Module, Collector, list[by_rows.ByRows]]:
    """A copy of the model with every layer that can be wrapped."""
    model = copy.deepcopy(model)
    found = by_rows.layers(model)
    collector = Collector({name: len(model.get_parameter(name)) for name in found})
    return model, collector, [by_rows.ByRows(m, n, collector) for n, m in found.items()]


def conv1d(inputs: int, outputs: int) -> nn.Module:
    layer = Conv1D(outputs, inputs)
    nn.init.normal_(layer.bias)
    return layer


LAYERS = {
    "linear": lambda: nn.Linear(6, 11),
    "linear without bias": lambda: nn.Linear(6, 11, bias=False),
    "conv1d": lambda: conv1d(6, 11),
}


@pytest.mark.parametrize("before", [False, True], ids=["lowest layer", "above another"])
@pytest.mark.parametrize("low", [False, True], ids=["plain", "autocast"])
@pytest.mark.parametrize("shape", [(4, 6), (2, 5, 6)], ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_products_have_the_gradients_of_autograd(kind, shape, low, before):
    torch.manual_seed(0)
    layer, x = LAYERS[kind](), torch.randn(shape)
    ends = []
    model, collector, _ = wrapped(nn.ModuleDict({"it": layer}))
    for each in (nn.ModuleDict({"it": layer}), model):
        given = x.clone().requires_grad_(before)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            made = each["it"](given)
        made.float().square().sum().backward()
        gradients = {n: p.grad for n, p in each.named_parameters()}
        ends.append((made.detach(), given.grad, gradients))
    (made, of_x, gradients), (ours, of_ours, rest) = ends
    assert torch.equal(made, ours) and made.dtype == ours.dtype
    assert rest.pop("it.weight") is None, "it is used up"
    close = {"rtol": 0.02, "atol": 0.02} if low else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(
        collector.found["it.weight"].float(), gradients.pop("it.weight"), **close
    )
    torch.testing.assert_close(rest, gradients)
    if before:
        torch.testing.assert_close(of_ours, of_x)


@pytest.mark.parametrize("padding", [None, 2])
def test_embeddings_have_the_gradients_of_autograd(padding):
    torch.manual_seed(0)
    layer = nn.ModuleDict({"it": nn.Embedding(11, 5, padding_idx=padding)})
    ids = torch.tensor([[1, 2, 2, 10], [0, 1, 1, 9]])
    model, collector, _ = wrapped(layer)
    for each in (layer, model):
        each["it"](ids).pow(3).sum().backward()
    assert model["it"].weight.grad is None
    assert torch.equal(collector.found["it.weight"], layer["it"].weight.grad)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("frozen_below", [False, True])
def test_the_output_layer_of_a_loss_in_chunks_has_the_gradients_of_the_whole_one(
    bias, frozen_below
):
    torch.manual_seed(0)
    hidden = torch.randn(7, 4, dtype=torch.float64)
    targets = torch.tensor([1, 0, 10, 4, chunked.IGNORED, 3, 3])
    plain = nn.ModuleDict({"it": nn.Linear(4, 11, bias=bias, dtype=torch.float64)})
    model, collector, _ = wrapped(plain)
    ends = []
    for each in (plain, model):
        own, layer = hidden.clone().requires_grad_(not frozen_below), each["it"]
        rows = getattr(layer, "by_rows", None)
        if rows is not None:
            rows.called()
        losses = chunked._ChunkedCrossEntropy.apply(own, layer.weight, layer.bias, targets, rows)
        (losses * torch.arange(1.0, 8.0)).sum().backward()
        ends.append((losses.detach(), own.grad, layer.bias.grad if bias else None))
    torch.testing.assert_close(*ends)
    assert model["it"].weight.grad is None
    torch.testing.assert_close(
        collector.found["it.weight"], plain["it"].weight.grad, rtol=1e-6, atol=1e-6
    )  # the softmax is in fp32


def test_a_matrix_with_several_uses_gets_its_gradient_from_autograd():
    torch.manual_seed(0)
    twice, tied = nn.Linear(4, 4), nn.Embedding(4, 4)
    out = nn.Linear(4, 4, bias=False)
    out.weight = tied.weight
    plain = nn.ModuleDict({"twice": twice, "tied": tied, "out": out})
    model, collector, wrappers = wrapped(plain)
    assert list(by_rows.layers(plain)) == ["twice.weight"], "the tied ones share theirs"
    for _ in range(2):  # the calls are counted anew
        for each in (plain, model):
            each.zero_grad()
            x = each["tied"](torch.tensor([0, 3, 1]))
            each["out"](each["twice"](each["twice"](x))).square().sum().backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, plain.get_parameter(name).grad)
        for wrapper in wrappers:
            wrapper.end_step()
    assert not collector.found


def test_what_trains_nothing_is_not_counted_and_copies_know_nothing_of_it():
    model, collector, [wrapper] = wrapped(nn.ModuleDict({"it": nn.Linear(3, 4)}))
    x = torch.randn(2, 3)
    with torch.no_grad():
        model["it"](x)
    model["it"](x[:0])
    model["it"].weight.requires_grad_(False)
    model["it"](x)
    model["it"].weight.requires_grad_(True)
    model["it"](x).sum().backward()
    assert list(collector.found) == ["it.weight"], "one call of those depends on it"
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other["it"]) is nn.Linear and not hasattr(other["it"], "by_rows")
    wrapper.remove()
    assert type(model["it"]) is nn.Linear
    model["it"](x).sum().backward()
    assert model["it"].weight.grad is not None


FAMILIES = [
    "BertForSequenceClassification",
    "GPT2LMHeadModel",
    "OPTForCausalLM",
    "LlamaForCausalLM",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [{}, {"checkpointing": "parts"}, {"partition": "rows:500"}], ids=str
)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_ends_at_the_weights_of_the_ordinary_update(name, more):
    """In fp64, since the sums of a product may have another order: after two sweeps, with dropout."""
    family = {"Be": "bert", "GP": "gpt2", "OP": "opt", "Ll": "llama"}[name[:2]]
    ends, taken = [], []
    for how in ({}, {**INSIDE, "piece": 1024, **more}):
        model = families.build(family, name).double()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.2
        own = {k: v for k, v in more.items() if k == "partition"}
        optimizer = HiFT(model, "adamw", lr=1e-3, **{**own, **how})
        torch.manual_seed(3)
        for seed in range(2 * len(optimizer.groups)):
            model(**families.inputs(name, seed)).loss.backward()
            taken.append(coming_update(model, optimizer).gradient_bytes)
            optimizer.step()
            optimizer.zero_grad()
        ends.append(model)
    for (key, ours), theirs in zip(ends[1].named_parameters(), ends[0].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9, msg=key)


def test_no_gradient_is_larger_than_a_piece():
    """Moments of fp32 take 8 bytes a number: a piece of 4,096 bytes has 512, and a gradient 2,048 bytes."""
    model = tiny(width=64)
    optimizer = HiFT(model, "adamw", lr=1e-2, group_size="all", piece=4096, **INSIDE)
    [ids] = batches(1)
    sizes = []
    for size in (4096, 1 << 20):
        model = tiny(width=64)
        optimizer = HiFT(model, "adamw", lr=1e-2, group_size="all", piece=size, **INSIDE)
        train(model, optimizer, [ids])
        with LiveBytes([*model.parameters(), ids]) as counter:
            loss_of(model, ids).backward()
        sizes.append(coming_update(model, optimizer).gradient_bytes)
        optimizer.step()
        del counter
    assert sizes == [2048, 64 * 128 * 4]


def test_a_second_gradient_before_the_step_is_refused():
    model = tiny(width=64)
    optimizer = HiFT(model, "adamw", lr=1e-2, piece=4096, order="top2down", **INSIDE)
    [ids] = batches(1)
    loss_of(model, ids).backward()
    assert optimizer.position.step == 0
    with pytest.raises(UserError, match="raise the batch size"):
        loss_of(model, ids).backward()


def test_released_and_gone_optimizers_leave_whole_gradients():
    for end in (lambda o: o.release(), lambda o: None):
        model = tiny(width=64)
        optimizer = HiFT(model, "adamw", lr=1e-2, piece=4096, **INSIDE)
        end(optimizer)
        del optimizer
        model.requires_grad_(True)
        loss_of(model, batches(1)[0]).backward()
        assert all(p.grad is not None for p in model.parameters())
