"""GaLore and APOLLO against their packages used directly, and the state that they keep."""

import copy
import sys

import pytest
import torch
from factories import make_spec, make_strategy

from benchmark.errors import UserError
from benchmark.measure.optimizer_state import state_bytes, state_tensors
from benchmark.models import registry

STEPS, LR = 10, 1e-3
RANK = 4
NAMES = ("galore", "apollo", "apollo_mini")
BLOCKS = {"tiny-bert": ".encoder.layer.", "tiny-gpt2": ".h."}


@pytest.fixture(scope="module", params=BLOCKS)
def case(request):
    """A tiny model in training mode, a batch, and the part of a name that says block."""
    torch.manual_seed(0)
    source = registry.source(request.param)
    model = registry.load_model(source, "sequence_classification", 1, num_labels=2)
    ids = torch.randint(10, 900, (4, 12))
    batch = {"input_ids": ids, "labels": torch.tensor([0, 1, 1, 0])}
    return model.train(), batch, BLOCKS[request.param]


def train(model, batch, optimizer):
    torch.manual_seed(1)
    for _ in range(STEPS):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def strategy(name, **options):
    spec = make_spec(strategy=name, lr=LR, schedule="constant", options=options, weight_decay=0.1)
    return make_strategy(spec)


def package(name, plain, matrices):
    """The package's optimizer as its README has it."""
    shared = {"rank": RANK, "update_proj_gap": 3, "scale": 2.0, "proj_type": "std"}
    if name == "galore":
        from galore_torch import GaLoreAdamW

        cls = GaLoreAdamW
    else:
        from apollo_torch import APOLLOAdamW

        scale_type = "channel" if name == "apollo" else "tensor"
        cls, shared = APOLLOAdamW, {**shared, "proj": "random", "scale_type": scale_type}
    decayed = [p for p in plain if p.ndim == 2]
    groups = [
        {"params": decayed, "weight_decay": 0.1},
        {"params": [p for p in plain if p.ndim < 2]},
        {"params": matrices, **shared, "weight_decay": 0.1},
    ]
    return cls(groups, lr=LR, eps=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_are_those_of_the_package(case, name):
    model, batch, block = case
    theirs, mine = copy.deepcopy(model), copy.deepcopy(model)
    targets = [p for n, p in theirs.named_parameters() if block in n and p.ndim == 2]
    others = [p for n, p in theirs.named_parameters() if block not in n or p.ndim < 2]
    train(theirs, batch, package(name, others, targets))
    made = strategy(name, rank=RANK, update_proj_gap=3, scale=2.0)
    optimizer, _ = made.optimizer(made.prepare(mine), STEPS)
    train(mine, batch, optimizer)
    for ours, expected, start in zip(
        mine.parameters(), theirs.parameters(), model.parameters(), strict=True
    ):
        assert torch.equal(ours, expected)
        assert not torch.equal(ours, start)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_what_the_papers_count(case, name):
    """r numbers for each row of the shorter side, twice r for each of the longer one, against AdamW's two for
    each weight. APOLLO keeps the norm of a matrix's last update as well."""
    model, batch, block = copy.deepcopy(case[0]), *case[1:]
    made = strategy(name, rank=RANK)
    optimizer, _ = made.optimizer(made.prepare(model), STEPS)
    train(model, batch, optimizer)
    numbers = 0
    for n, p in model.named_parameters():
        projected = block in n and p.ndim == 2
        numbers += RANK * (min(p.shape) + 2 * max(p.shape)) if projected else 2 * p.numel()
        numbers += projected and name != "galore"
    assert state_bytes(optimizer)["device"]["optimizer_state"] == 4 * numbers
    assert sum(tensor.numel() for tensor in state_tensors(optimizer)) == numbers


def test_targets_are_named_by_the_user(case):
    model, _, block = case
    name = "query" if "encoder" in block else "c_attn"
    made = strategy("galore", targets=[name])
    optimizer, _ = made.optimizer(model, STEPS)
    named = {id(p): n for n, p in model.named_parameters()}
    [group] = [group for group in optimizer.param_groups if "rank" in group]
    assert {named[id(p)] for p in group["params"]} == {
        n for n in named.values() if n.endswith(f".{name}.weight")
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 65}, r"strategy galore: rank: 65 is more than the 64 of \S+weight \(64 x"),
        ({"targets": ["quary"]}, "no module of .* with a weight is named quary"),
        ({"targets": ["LayerNorm", "ln_1"]}, "strategy galore: targets: "),
    ],
)
def test_what_the_model_cannot_is_one_line(case, options, said):
    with pytest.raises(UserError, match=said) as refused:
        strategy("galore", **options).prepare(case[0])
    assert "\n" not in str(refused.value)


def test_a_vector_is_not_projected(case):
    norm = "LayerNorm" if "encoder" in case[2] else "ln_1"
    with pytest.raises(UserError, match=rf"{norm}.weight has 1 dimension, and only matrices are"):
        strategy("galore", targets=[norm]).prepare(case[0])


@pytest.mark.parametrize(
    ("name", "package"), [("galore", "galore_torch"), ("apollo", "apollo_torch")]
)
def test_a_missing_package_is_named_before_there_is_a_model(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"benchmark.strategies.rules.{name}", raising=False)
    with pytest.raises(UserError, match=rf"strategy {name} needs the packages {name}-torch and"):
        strategy(name).check()
