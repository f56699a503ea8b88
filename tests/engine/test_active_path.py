"""Activations: no graph below the active group; recomputation above it changes nothing but memory."""

import copy
import io
import pickle
import sys

import pytest
import torch
from families import build, inputs
from reference import batches, loss_of, same_weights, tiny, train
from test_in_backward import MODELS
from torch import nn

from benchmark.engine import HiFT, find_units
from benchmark.measure.live_bytes import LiveBytes


def _saved_bytes(model, ids) -> int:
    """Bytes that one forward pass keeps for backward, weights aside."""
    weights = {p.data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor):
        if tensor.data_ptr() not in weights:
            seen[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = loss_of(model, ids)
    del loss
    return sum(seen.values())


def test_blocks_below_the_active_group_build_no_graph():
    model = tiny()
    optimizer = HiFT(model, "sgd", lr=1e-2)
    outputs: dict[int, torch.Tensor] = {}
    for i, block in enumerate(model.blocks):
        block.register_forward_hook(lambda m, a, out, i=i: outputs.update({i: out}))
    for turn, ids in enumerate(batches(6)):
        loss_of(model, ids).backward()
        graph = [outputs[i].requires_grad for i in range(4)]
        assert graph == [i + 1 >= turn for i in range(4)]  # unit i + 1 is block i
        optimizer.step()
        optimizer.zero_grad()


def test_saved_activations_shrink_towards_the_head():
    model = tiny()
    optimizer = HiFT(model, "sgd", lr=1e-2)
    saved = []
    for ids in batches(6):
        saved.append(_saved_bytes(model, ids))
        train(model, optimizer, [ids])
    blocks = saved[1:]  # embeddings keep no input activations, so they may save a little less
    assert blocks == sorted(blocks, reverse=True) and saved[-1] < saved[0] / 3


@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize(("kind", "spared"), [("active_path", 1), ("boundaries", 0), ("host", 0)])
def test_recomputing_gives_the_same_weights(kind, spared, m):
    """`spared`: the lowest units of the active path that store their activations."""
    plain, lean = tiny(depth=6), tiny(depth=6)
    with_all = HiFT(plain, "adamw", lr=1e-2, group_size=m)
    saves = HiFT(lean, "adamw", lr=1e-2, group_size=m, checkpointing=kind)
    calls: list[int] = []
    for i, block in enumerate(lean.blocks):
        block.up.register_forward_hook(lambda *_, i=i: calls.append(i))
    for ids in batches(16):
        lowest = int(find_index(saves))
        assert _saved_bytes(lean, ids) <= _saved_bytes(plain, ids)
        calls.clear()
        train(plain, with_all, [ids])
        train(lean, saves, [ids])
        twice = {i for i in calls if calls.count(i) == 2}
        assert twice == {i for i in range(6) if i + 1 >= lowest + spared}
    assert same_weights(plain, lean)


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama", "bert"])
def test_parts_that_recompute_apart_give_the_same_weights(name):
    """With dropout, whose random numbers are drawn again. In fp64: where a tensor lies can change its last
    bit in a product."""
    ends = []
    for kind in (None, "parts"):
        model = build(name, MODELS[name]).double()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.2
        optimizer = HiFT(model, "adamw", lr=1e-2, group_size=2, checkpointing=kind)
        torch.manual_seed(3)
        for seed in range(2 * len(optimizer.groups)):
            model(**inputs(MODELS[name], seed)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        ends.append(model)
    for ours, theirs in zip(ends[1].parameters(), ends[0].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    optimizer.release()
    kinds = [[type(module) for module in model.modules()] for model in ends]
    assert kinds[0] == kinds[1]


def test_inputs_of_parts_are_not_stored_besides_those_of_blocks():
    """What the forward pass leaves on the device. transformers calls a LLaMA's attention by keyword."""
    left = {}
    for kind in ("host", "parts"):
        model = build("llama", "LlamaForCausalLM")
        optimizer = HiFT(model, "sgd", lr=1e-2, checkpointing=kind)
        batch = inputs("LlamaForCausalLM", 0)
        with LiveBytes([*model.parameters(), *batch.values()]) as counter:
            loss = model(**batch).loss
            left[kind] = counter.live
        del loss
        optimizer.release()
    assert left["parts"] == left["host"]


def find_index(optimizer) -> int:
    """Index of the active group's lowest unit."""
    names = [u.name for u in optimizer.units]
    return min(names.index(n) for n in optimizer.active.units)


def test_boundaries_are_all_that_is_stored():
    """One input of 2 x 5 x 8 values a block, and no more for the lowest active one."""
    ids = batches(1)[0]
    stored = {}
    for depth in (4, 8):
        for kind in ("active_path", "boundaries"):
            model = tiny(depth=depth)
            optimizer = HiFT(model, "sgd", lr=1e-2, checkpointing=kind)
            train(model, optimizer, [ids])  # now the first block is active
            stored[kind, depth] = _saved_bytes(model, ids)
    assert stored["boundaries", 4] < stored["active_path", 4]
    values = tiny().tokens(ids).nbytes
    assert stored["boundaries", 8] - stored["boundaries", 4] == 4 * values


def test_on_the_host_the_device_stores_nothing_of_a_block():
    """What waits there is an input of 2 x 5 x 8 values a block; each comes back as it was, in its turn."""
    ids, device, host = batches(1)[0], {}, {}
    for depth in (4, 8):
        model = tiny(depth=depth)
        optimizer = HiFT(model, "sgd", lr=1e-2, checkpointing="host")
        with LiveBytes(model.parameters()) as memory:
            loss = loss_of(model, ids)
            device[depth], host[depth] = memory.live, memory.host
        loss.backward()
        optimizer.release()
    values = tiny().tokens(ids).nbytes
    assert host == {4: 4 * values, 8: 8 * values}
    weights = tiny(depth=8), tiny(depth=4)
    deeper, shallower = (sum(p.nbytes for p in model.parameters()) for model in weights)
    assert device[8] - device[4] == deeper - shallower


def test_recomputing_saves_memory_when_the_embeddings_are_active():
    plain, lean = tiny(depth=8), tiny(depth=8)
    HiFT(plain, "sgd", lr=1e-2)
    optimizer = HiFT(lean, "sgd", lr=1e-2, checkpointing="active_path")
    ids = batches(1)[0]
    assert optimizer.active.units == ("embeddings",)
    assert _saved_bytes(lean, ids) < 0.5 * _saved_bytes(plain, ids)


CASES = [
    ("gpt2", "GPT2LMHeadModel"),
    ("llama", "LlamaForCausalLM"),
    ("bert", "BertForSequenceClassification"),
    ("t5", "T5ForConditionalGeneration"),
]


@pytest.mark.sparse
@pytest.mark.parametrize(("family", "class_name"), CASES)
@pytest.mark.parametrize("how", ["active_path", "host", "transformers", "reentrant"])
def test_transformers_models_train_alike_with_recomputation(family, class_name, how):
    plain, lean = build(family, class_name), build(family, class_name)
    optimizers = [HiFT(plain, "adamw", lr=1e-3)]
    if how in ("active_path", "host"):
        optimizers.append(HiFT(lean, "adamw", lr=1e-3, checkpointing=how))
    else:
        lean.gradient_checkpointing_enable({"use_reentrant": how == "reentrant"})
        optimizers.append(HiFT(lean, "adamw", lr=1e-3))
    if how == "reentrant":  # its blocks need an input that requires a gradient; HF offers this
        lean.enable_input_require_grads()
    for step in range(len(find_units(plain)) + 2):
        for model, optimizer in zip((plain, lean), optimizers, strict=True):
            model(**inputs(class_name, seed=step)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    for (name, p), q in zip(plain.named_parameters(), lean.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6), name


def test_dropout_replays_in_the_recomputed_pass():
    """Non-reentrant checkpoints stash the random state: same seed, same weights."""
    import transformers as T

    config = T.GPT2Config(vocab_size=99, n_embd=16, n_layer=3, n_head=4, n_positions=40)
    ends = []
    for checkpointing in (None, "active_path"):
        torch.manual_seed(0)
        model = T.GPT2LMHeadModel(config).train()
        optimizer = HiFT(model, "sgd", lr=0.1, checkpointing=checkpointing)
        torch.manual_seed(1)
        for ids in batches(7, words=99):
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        ends.append(model)
    assert same_weights(*ends)


def _recomputed(model, ids) -> set[int]:
    """Blocks whose forward pass runs twice in one forward and backward pass."""
    calls: list[int] = []
    hooks = [
        block.up.register_forward_hook(lambda *_, i=i: calls.append(i))
        for i, block in enumerate(model.blocks)
    ]
    loss_of(model, ids).backward()
    model.zero_grad()
    for hook in hooks:
        hook.remove()
    return {i for i in calls if calls.count(i) == 2}


def test_release_undoes_recomputation():
    model, ids = tiny(), batches(1)[0]
    kinds = [type(module) for module in model.modules()]
    optimizer = HiFT(model, "sgd", lr=1e-2, checkpointing="active_path")
    assert _recomputed(model, ids) == {0, 1, 2, 3}
    optimizer.release()
    assert _recomputed(model, ids) == set()
    assert [type(module) for module in model.modules()] == kinds
    assert all("active_path" not in vars(module) for module in model.modules())
    again = HiFT(model, "sgd", lr=1e-2, checkpointing="active_path", order="top2down")
    assert again.active.units == ("head",) and _recomputed(model, ids) == set()
    train(model, again, [ids] * 2)
    assert _recomputed(model, ids) == {3}
    optimizer.release()  # a second time, when the blocks are another's
    assert _recomputed(model, ids) == {3}


@pytest.mark.parametrize("checkpointing", [None, "active_path"])
def test_recomputation_ends_with_its_optimizer(checkpointing):
    """A dead optimizer's last group must not decide what its successor recomputes."""
    model, ids = tiny(), batches(1)[0]
    dead = HiFT(model, "sgd", lr=1e-2, checkpointing="active_path")
    scheduler = dead.delayed_lr(total_steps=9)
    del dead, scheduler
    optimizer = HiFT(model, "sgd", lr=1e-2, checkpointing=checkpointing)
    assert _recomputed(model, ids) == ({0, 1, 2, 3} if checkpointing else set())
    optimizer.release()
    assert _recomputed(model, ids) == set()


def _copied(model):
    return copy.deepcopy(model)


def _pickled(model):
    return pickle.loads(pickle.dumps(model))


def _saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("through", [_copied, _pickled, _saved])
def test_a_copy_of_the_model_is_plain_and_its_own(through):
    model, plain, ids = tiny(tied=True), tiny(tied=True), batches(1)[0]
    optimizer = HiFT(model, "sgd", lr=1e-2, checkpointing="active_path")
    other = through(model)
    assert [type(m) for m in other.modules()] == [type(m) for m in plain.modules()]
    assert same_weights(other, model) and other.out.weight is other.tokens.weight
    assert _recomputed(other, ids) == set() and _recomputed(model, ids) == {0, 1, 2, 3}
    train(model, optimizer, batches(2))
    assert not same_weights(other, model) and same_weights(other, plain)
    other.requires_grad_(True)
    mine = HiFT(other, "sgd", lr=1e-2, checkpointing="active_path")
    assert _recomputed(other, ids) == {0, 1, 2, 3}
    mine.release()
    assert optimizer.active.units == ("blocks.1",) and _recomputed(model, ids) == {2, 3}


@pytest.mark.parametrize(("family", "class_name"), CASES)
@pytest.mark.parametrize("through", [_copied, _saved])
def test_a_transformers_model_can_be_saved_while_it_recomputes(family, class_name, through):
    model, plain = build(family, class_name).eval(), build(family, class_name).eval()
    optimizer = HiFT(model, "sgd", lr=1e-3, checkpointing="active_path")
    other = through(model)
    assert [type(m) for m in other.modules()] == [type(m) for m in plain.modules()]
    with torch.no_grad():
        results = [m(**inputs(class_name, seed=0)).loss for m in (model, other, plain)]
    assert results[0] == results[1] == results[2]
    del optimizer


def test_a_saved_model_needs_nothing_of_the_engine(tmp_path, monkeypatch):
    """The file loads where the package is not installed."""
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(3)))
    optimizer = HiFT(model, "sgd", lr=1e-2, checkpointing="active_path")
    file = tmp_path / "model.pt"
    torch.save(model, file)
    with monkeypatch.context() as without:
        for name in [name for name in sys.modules if name.partition(".")[0] == "benchmark"]:
            without.setitem(sys.modules, name, None)  # as if it were not there
        loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded(torch.ones(1, 4)), model(torch.ones(1, 4)))
    optimizer.release()
