"""Streamed weights: nothing that is computed changes, and what cannot be streamed is refused."""

import copy

import pytest
import torch
from families import inputs
from pairs import each_pair
from reference import batches, same_weights, tiny, train
from streams import FAMILIES, MASTERS, both, steps, with_dropout
from torch import nn

from benchmark.engine import HiFT, Unit
from benchmark.engine.distributed import synchronise
from benchmark.errors import UserError

KINDS = (None, "active_path", "boundaries", "parts")
CASES = [
    (family, list(MASTERS)[place % 2], m, order, KINDS[place // 2 % 4])
    for place, (family, m, order) in enumerate(
        each_pair(FAMILIES, (1, 2, 3), ("bottom2up", "top2down", "random"))
    )
]
"""Every two values of family, m and order meet, and every master meets every kind."""


@pytest.mark.sparse
@pytest.mark.parametrize(("family", "master", "m", "order", "kind"), CASES)
def test_two_sweeps_end_with_the_weights_of_the_resident_engine(family, master, m, order, kind):
    settings = {"group_size": m, "order": order, "checkpointing": kind, **MASTERS[master]}
    ends = both(lambda: with_dropout(family), **settings)
    start = copy.deepcopy(ends[0][0])
    for model, optimizer in ends:
        steps(model, optimizer, FAMILIES[family], range(2 * len(optimizer.groups)))
    assert same_weights(ends[0][0], ends[1][0]) and not same_weights(start, ends[1][0])


@pytest.mark.parametrize(
    "settings",
    [
        {"dwell": 2},
        {"idle": "keep"},
        {"idle": "drop", "master": "active", "low_dtype": torch.bfloat16},
        {"always_active": ["embeddings", "blocks.1"]},
        {"frozen": ["embeddings", "blocks.0"]},
        {"group_size": "all"},
        {"checkpointing": "active_path"},
        {"checkpointing": "boundaries"},
        {"checkpointing": "host"},
        {"checkpointing": "parts"},
    ],
    ids=str,
)
def test_every_other_setting_trains_alike(settings):
    (plain, first), (streamed, second) = both(lambda: tiny(depth=5), **settings)
    for model, optimizer in ((plain, first), (streamed, second)):
        train(model, optimizer, batches(20), accumulate=2, clip=0.5)
    assert same_weights(plain, streamed)


@pytest.mark.parametrize("piece", [64 << 20, 250])
@pytest.mark.parametrize("master", MASTERS)
@pytest.mark.parametrize("m", [1, 3])
def test_weights_updated_inside_the_backward_pass_are_streamed_alike(master, m, piece):
    plain, streamed = with_dropout("llama"), with_dropout("llama")
    settings = {"lr": 1e-2, "group_size": m, **MASTERS[master]}
    first = HiFT(plain, "adamw", **settings)
    second = HiFT(
        streamed, "adamw", weights="stream", update="in_backward", piece=piece, **settings
    )
    for model, optimizer in ((plain, first), (streamed, second)):
        steps(model, optimizer, FAMILIES["llama"], range(2 * len(optimizer.groups)))
    assert same_weights(plain, streamed)
    assert len(second.weights.on_device()) == 2  # a window of two, whatever m is


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_by_transformers_trains_alike(reentrant):
    ends = both(lambda: with_dropout("gpt2"))
    for model, optimizer in ends:
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
        steps(model, optimizer, FAMILIES["gpt2"], range(6))
    assert same_weights(ends[0][0], ends[1][0])


def test_gradients_in_eval_mode_are_the_same():
    ends = both(lambda: with_dropout("gpt2").eval())
    for model, optimizer in ends:
        steps(model, optimizer, FAMILIES["gpt2"], range(6))
    assert same_weights(ends[0][0], ends[1][0])


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama", "t5"])
def test_it_generates_and_predicts_what_resident_weights_do(family):
    ends = both(lambda: with_dropout(family))
    found = []
    for model, optimizer in ends:
        steps(model, optimizer, FAMILIES[family], range(4))
        ids = inputs(FAMILIES[family])["input_ids"]
        with torch.inference_mode():
            logits = model.eval()(**inputs(FAMILIES[family])).logits
        made = model.generate(input_ids=ids, max_new_tokens=8, do_sample=False, use_cache=True)
        steps(model.train(), optimizer, FAMILIES[family], range(4, 8))
        found.append((logits, made))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert same_weights(ends[0][0], ends[1][0])


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        (tiny, {"weights": "streamed"}, 'unknown weights "streamed".*"stream"'),
        (Flat, {"units": "its own"}, 'Flat holds no list of repeated blocks.*weights="resident"'),
        (
            lambda: nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.Tanh())] * 3),
            {},
            'no block of Sequential has weights of its own; use weights="resident"',
        ),
    ],
)
def test_what_cannot_be_streamed_is_refused_in_one_line(model, settings, said):
    made = model()
    if "units" in settings:
        numel = sum(p.numel() for p in made.parameters())
        names = tuple(name for name, _ in made.named_parameters())
        settings = {"units": [Unit("all", names, numel, "head")]}
    with pytest.raises(UserError, match=said) as refused:
        HiFT(made, "sgd", lr=1e-2, **{"weights": "stream", **settings})
    assert "\n" not in str(refused.value)
    assert all(p.requires_grad for p in made.parameters())


def test_several_ranks_are_refused(monkeypatch):
    model = tiny()
    optimizer = HiFT(model, "sgd", lr=1e-2, weights="stream")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 2)
    with pytest.raises(UserError, match='in one process, not with DDP: use weights="resident"'):
        HiFT(tiny(), "sgd", lr=1e-2, weights="stream")
    with pytest.raises(UserError, match='in one process; use weights="resident"'):
        synchronise(optimizer, model)
