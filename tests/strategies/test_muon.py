"""Muon with AdamW beside it, against the two optimizers of torch stepped by hand."""

import copy

import pytest
import torch
from factories import make_spec, make_strategy

from benchmark.measure.optimizer_state import state_bytes
from benchmark.models import registry

STEPS, LR = 10, 1e-3
BLOCKS = {"tiny-bert": ".encoder.layer.", "tiny-gpt2": ".h."}


@pytest.mark.parametrize("name", BLOCKS)
def test_the_matrices_of_the_blocks_are_muons_and_all_else_adamws(name):
    torch.manual_seed(0)
    source = registry.source(name)
    base = registry.load_model(source, "sequence_classification", 1, num_labels=2).train()
    batch = {"input_ids": torch.randint(10, 900, (4, 12)), "labels": torch.tensor([0, 1, 1, 0])}

    mine = copy.deepcopy(base)
    spec = make_spec(strategy="muon", lr=LR, weight_decay=0.1, schedule="linear")
    optimizer, scheduler = make_strategy(spec).optimizer(mine, STEPS)
    torch.manual_seed(1)
    for _ in range(STEPS):
        mine(**batch).loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()

    theirs = copy.deepcopy(base)
    named = dict(theirs.named_parameters())
    hidden = [p for n, p in named.items() if BLOCKS[name] in n and p.ndim == 2]
    rest = {n: p for n, p in named.items() if BLOCKS[name] not in n or p.ndim < 2}
    matrices = [p for p in rest.values() if p.ndim == 2]
    vectors = {"params": [p for p in rest.values() if p.ndim < 2], "weight_decay": 0.0}
    both = [
        torch.optim.Muon(hidden, lr=LR, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, vectors], lr=LR),
    ]
    torch.manual_seed(1)
    for step in range(STEPS):
        theirs(**batch).loss.backward()
        for one in both:
            for group in one.param_groups:
                group["lr"] = LR * (1 - step / STEPS)
            one.step()
            one.zero_grad()

    for ours, expected, start in zip(
        mine.parameters(), theirs.parameters(), base.parameters(), strict=True
    ):
        assert torch.equal(ours, expected) and not torch.equal(ours, start)
    numbers = sum(p.numel() for p in hidden) + sum(2 * p.numel() + 1 for p in rest.values())
    assert state_bytes(optimizer)["device"]["optimizer_state"] == 4 * numbers


def test_its_state_goes_on_where_it_was_saved():
    def optimizer(model):
        return make_strategy(make_spec(strategy="muon", lr=LR)).optimizer(model, 6)[0]

    blocks = [torch.nn.Sequential(torch.nn.Linear(4, 4)) for _ in range(2)]
    base = torch.nn.Sequential(torch.nn.Sequential(*blocks), torch.nn.Linear(4, 2))
    ends = []
    for stop in (None, 3):
        model = copy.deepcopy(base)
        running = optimizer(model)
        for step in range(6):
            if step == stop:
                saved = running.state_dict()
                running = optimizer(model)
                running.load_state_dict(saved)
            torch.manual_seed(step)
            model(torch.randn(3, 4)).square().sum().backward()
            running.step()
            running.zero_grad()
        ends.append(list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
