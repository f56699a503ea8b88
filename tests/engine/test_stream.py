"""Streamed weights: where they are changes, and nothing that is computed does."""

import copy

import pytest
import torch
import transformers as T
from families import CONFIGS, inputs
from reference import Tiny, batches, loss_of, same_weights, tiny, train
from torch import nn

from benchmark.engine import HiFT, keep_on_host, stream_of
from benchmark.engine.checkpoint import load, save
from benchmark.engine.distributed import synchronise
from benchmark.errors import UserError

FAMILIES = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "gpt2": "GPT2LMHeadModel",
    "opt": "OPTForCausalLM",
    "llama": "LlamaForCausalLM",
    "t5": "T5ForConditionalGeneration",
}
MASTERS = {"none": {}, "all": {"master": "all", "low_dtype": torch.bfloat16}}


def with_dropout(family: str) -> nn.Module:
    """The family's tiny model with dropout and random weights from seed 0. It has no key-value cache, whose
    tensors are laid out otherwise, and dropout draws in that order."""
    torch.manual_seed(0)
    config = CONFIGS[family][1]()
    config.use_cache = False
    if family == "llama":
        config.attention_dropout = 0.1
    return getattr(T, FAMILIES[family])(config).train()


def steps(model, optimizer, class_name: str, numbers: range) -> None:
    """Optimizer steps on batches of these numbers, each of which has its own random numbers for dropout."""
    for number in numbers:
        torch.manual_seed(number)
        model(**inputs(class_name, seed=number)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def both(build, **settings) -> list[tuple[nn.Module, HiFT]]:
    """The same model twice, with resident and with streamed weights."""
    made = []
    for weights in ("resident", "stream"):
        model = build()
        made.append((model, HiFT(model, "adamw", lr=1e-2, weights=weights, **settings)))
    return made


@pytest.mark.sparse
@pytest.mark.parametrize("order", ["bottom2up", "top2down", "random"])
@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("master", MASTERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_two_sweeps_end_with_the_weights_of_the_resident_engine(family, master, m, order):
    ends = both(lambda: with_dropout(family), group_size=m, order=order, **MASTERS[master])
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
    ],
    ids=str,
)
def test_every_other_setting_trains_alike(settings):
    (plain, first), (streamed, second) = both(lambda: tiny(depth=5), **settings)
    for model, optimizer in ((plain, first), (streamed, second)):
        train(model, optimizer, batches(20), accumulate=2, clip=0.5)
    assert same_weights(plain, streamed)


@pytest.mark.parametrize("piece", [64 << 20, 256])
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


def test_blocks_below_the_active_group_compute_once_and_the_others_twice():
    model = tiny(depth=5)
    optimizer = HiFT(model, "sgd", lr=1e-2, weights="stream")
    calls: list[int] = []
    for i, block in enumerate(model.blocks):
        block.up.register_forward_hook(lambda *_, i=i: calls.append(i))
    for turn, ids in enumerate(batches(7)):
        calls.clear()
        train(model, optimizer, [ids])
        assert [calls.count(i) for i in range(5)] == [1 + (i + 1 >= turn) for i in range(5)]


@pytest.mark.parametrize("m", [1, 2])
def test_never_more_blocks_than_the_window_s_are_on_the_device(m):
    model = tiny(depth=6, width=16)
    home = {p.untyped_storage().data_ptr() for b in model.blocks for p in b.parameters()}
    optimizer = HiFT(model, "adamw", lr=1e-2, group_size=m, weights="stream")
    one = sum(p.nbytes for p in model.blocks[0].parameters())
    seen: list[int] = []

    def look(*_):
        there = {p.untyped_storage() for b in model.blocks for p in b.parameters()}
        away = {s.data_ptr(): s.nbytes() for s in there if s.data_ptr() not in home}
        shown = [
            block
            for block in model.blocks
            if any(p.untyped_storage().data_ptr() in away for p in block.parameters())
        ]
        seen.append(len(shown))
        assert len(away) <= 2 and all(size < 1.3 * one for size in away.values())

    for block in model.blocks:
        block.down.register_forward_hook(look)
    for ids in batches(14):
        train(model, optimizer, [ids], before_step=look)
        look()
    assert max(seen) == 2 and len(seen) > 14 * 6
    window = sum(tensor.nbytes for tensor in optimizer.weights.on_device())
    assert 2 * one <= window < 2.6 * one
    assert optimizer.state_bytes()["host"]["weights"] == 6 * one


@pytest.mark.parametrize("order", ["bottom2up", "top2down", "random"])
@pytest.mark.parametrize(("m", "depth"), [(1, 6), (2, 7)])
@pytest.mark.parametrize("master", MASTERS)
def test_bytes_moved_are_the_closed_form(m, depth, order, master):
    model = tiny(depth=depth)
    settings = {"group_size": m, "order": order, **MASTERS[master]}
    optimizer = HiFT(model, "adamw", lr=1e-2, weights="stream", **settings)
    block = sum(p.nbytes for p in model.blocks[0].parameters())
    names = [unit.name for unit in optimizer.units]
    window, before = 2, None
    for ids in batches(2 * len(optimizer.groups)):
        updated = [name for name in optimizer.active.units if name.startswith("blocks")]
        # embeddings are below block 0, and the head above the last one
        lowest = max(0, min(map(names.index, optimizer.active.units)) - 1)
        here = 0 if before is None else max(0, window - min(before, depth - window))
        again = max(0, depth - window - lowest)
        was = optimizer.weights.moved_bytes
        train(model, optimizer, [ids])
        moved = {key: value - was[key] for key, value in optimizer.weights.moved_bytes.items()}
        assert moved["to_device"] == block * (depth - here + again)
        assert moved["to_host"] == block * len(updated)
        before = lowest


@pytest.mark.parametrize("master", MASTERS)
def test_a_run_goes_on_from_streamed_to_resident_and_back(master, tmp_path):
    data = batches(24)
    whole = tiny(depth=5)
    train(whole, HiFT(whole, "adamw", lr=1e-2, **MASTERS[master]), data)
    at, path = 0, tmp_path / "c.pt"
    for seed, (weights, end) in enumerate([("stream", 9), ("resident", 16), ("stream", 24)]):
        model = tiny(depth=5, seed=seed)
        optimizer = HiFT(model, "adamw", lr=1e-2, weights=weights, **MASTERS[master])
        if at:
            load(path, model, optimizer)
        train(model, optimizer, data[at:end])
        save(path, model, optimizer)
        at = end
    assert same_weights(model, whole)


def test_a_checkpoint_within_a_step_has_its_gradients(tmp_path):
    ends = []
    for interrupted in (False, True):
        model = tiny(depth=5)
        optimizer = HiFT(model, "adamw", lr=1e-2, weights="stream", order="top2down")
        train(model, optimizer, batches(3))
        loss_of(model, batches(5)[3]).backward()
        if interrupted:
            save(tmp_path / "c.pt", model, optimizer)
            model = tiny(depth=5, seed=1)
            optimizer = HiFT(model, "adamw", lr=1e-2, weights="stream", order="top2down")
            load(tmp_path / "c.pt", model, optimizer)
        train(model, optimizer, batches(5)[4:])
        ends.append(model)
    assert same_weights(*ends)


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


def test_saved_models_and_copies_are_whole_at_any_time(tmp_path):
    ends = both(lambda: with_dropout("llama"))
    (plain, _), (streamed, _) = ends
    for number in range(4):
        for model, own in ends:
            torch.manual_seed(number)
            model(**inputs(FAMILIES["llama"], seed=number)).loss.backward()
            if number < 3:
                own.step()
                own.zero_grad()
    streamed.save_pretrained(tmp_path / "folder")  # in the middle of a step
    torch.save(streamed, tmp_path / "model.pt")
    copied, state = copy.deepcopy(streamed), streamed.state_dict()
    saved = torch.load(tmp_path / "model.pt", weights_only=False)
    for model in (T.LlamaForCausalLM.from_pretrained(tmp_path / "folder"), copied, saved):
        assert same_weights(model, plain) and type(model.model.layers[0]) is type(
            plain.model.layers[0]
        )
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    for _, own in ends:
        own.step()
        own.zero_grad()
    assert same_weights(plain, streamed) and not same_weights(copied, plain)


def test_what_is_written_to_a_weight_between_steps_counts():
    ends = both(lambda: tiny(depth=5))
    for model, optimizer in ends:
        for ids in batches(14):
            train(model, optimizer, [ids])
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1.01)
    assert same_weights(ends[0][0], ends[1][0])


def test_loading_weights_into_a_streamed_model_replaces_them():
    model, other = tiny(depth=5), tiny(depth=5, seed=3)
    train(model, HiFT(model, "sgd", lr=1e-2, weights="stream"), batches(3))
    model.load_state_dict(other.state_dict())
    ids = batches(1)[0]
    assert same_weights(model, other) and torch.equal(model(ids), other(ids))


class Tied(Tiny):
    """The first two blocks share a matrix, and the head is the embeddings."""

    def __init__(self) -> None:
        super().__init__(depth=5, tied=True)
        self.blocks[1].up.weight = self.blocks[0].up.weight


def test_weights_that_blocks_share_stay_on_the_device():
    def build():
        torch.manual_seed(0)
        return Tied()

    (plain, first), (streamed, second) = both(build)
    for model, optimizer in ((plain, first), (streamed, second)):
        train(model, optimizer, batches(14))
    assert same_weights(plain, streamed)
    shared = streamed.blocks[0].up.weight
    blocks = {p for block in streamed.blocks for p in block.parameters()}
    assert second.state_bytes()["host"]["weights"] == sum(p.nbytes for p in blocks - {shared})


def test_frozen_weights_are_streamed_and_never_copied_back():
    def build():
        model = tiny(depth=5)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("norm" in name)
        return model

    (plain, first), (streamed, second) = both(build)
    for model, optimizer in ((plain, first), (streamed, second)):
        train(model, optimizer, batches(12))
    assert same_weights(plain, streamed)
    norms = sum(p.nbytes for block in streamed.blocks for p in block.norm.parameters())
    assert second.weights.moved_bytes["to_host"] == 2 * norms  # two sweeps
    assert second.state_bytes()["host"]["weights"] == sum(
        p.nbytes for block in streamed.blocks for p in block.parameters()
    )


def test_a_model_is_kept_on_the_host_before_it_has_an_optimizer():
    model, plain = tiny(depth=5), tiny(depth=5).bfloat16()
    keep_on_host(model)
    model.bfloat16()
    ids = batches(1)[0]
    assert torch.equal(model(ids), plain(ids)) and stream_of(model).on_device()
    assert {tensor.dtype for tensor in stream_of(model).on_host()} == {torch.bfloat16}
    train(model, HiFT(model, "sgd", lr=1e-1, weights="stream"), batches(7))
    train(plain, HiFT(plain, "sgd", lr=1e-1), batches(7))
    assert same_weights(model, plain)


def test_release_brings_all_weights_back():
    model, plain = tiny(depth=5), tiny(depth=5)
    kinds = [type(module) for module in model.modules()]
    optimizer = HiFT(model, "adamw", lr=1e-2, weights="stream")
    train(model, optimizer, batches(9))
    train(plain, HiFT(plain, "adamw", lr=1e-2), batches(9))
    optimizer.release()
    assert [type(module) for module in model.modules()] == kinds
    assert not stream_of(model).on_host() and same_weights(model, plain)
    assert all("weight_stream" not in vars(module) for module in model.modules())
    other = HiFT(model, "sgd", lr=1e-2, weights="stream")
    optimizer.release()  # a second time, when the blocks are another's
    assert stream_of(model) is other.weights and stream_of(model).on_host()
    other.release()
    assert not HiFT(model, "sgd", lr=1e-2).state_bytes()["host"]["weights"]


@pytest.mark.parametrize("weights", ["resident", "stream"])
def test_the_stream_outlives_its_optimizer_until_the_next_one(weights):
    model, plain = tiny(depth=5), tiny(depth=5)
    for each, kind in ((model, "stream"), (plain, "resident")):
        optimizer = HiFT(each, "sgd", lr=1e-2, weights=kind)
        train(each, optimizer, batches(4))
        del optimizer
    ids = batches(1)[0]
    assert torch.equal(model(ids), plain(ids)) and stream_of(model).on_host()
    train(model, HiFT(model, "sgd", lr=1e-2, weights=weights), batches(8))
    train(plain, HiFT(plain, "sgd", lr=1e-2), batches(8))
    assert same_weights(model, plain) and bool(stream_of(model).on_host()) == (weights == "stream")


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
    from benchmark.engine import Unit

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
