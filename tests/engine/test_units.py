"""Units of every family and head: each parameter exactly once, and every one of them trains."""

import pytest
import torch
from families import CONFIGS, build, heads, inputs, pairs
from reference import tiny
from torch import nn

from benchmark.engine import HiFT, find_units, make_groups


def _by_unit(model: nn.Module) -> dict[str, tuple[str, ...]]:
    return {unit.name: unit.parameters for unit in find_units(model)}


@pytest.mark.parametrize(("family", "class_name"), pairs())
def test_every_parameter_is_in_exactly_one_unit(family, class_name):
    model = build(family, class_name)
    units = find_units(model)
    placed = [name for unit in units for name in unit.parameters]
    assert sorted(placed) == sorted(name for name, _ in model.named_parameters())
    assert sum(unit.numel for unit in units) == sum(p.numel() for p in model.parameters())
    blocks = [u for u in units if u.kind == "block"]
    expected = CONFIGS[family][2]
    if class_name.endswith(("ForTokenClassification", "ForCausalLM")) and family in ("t5", "bart"):
        expected = 2  # one of the two stacks
    assert len(blocks) == expected
    assert units[0].kind == "embeddings" and units[0].name == "embeddings"
    assert [u.kind for u in units[1:-1]] == ["block"] * (len(units) - 2)


# a key's bias has no gradient but rounding noise: softmax ignores a constant shift
def _may_stay(name: str) -> bool:
    return any(part in name for part in ("key.bias", "k_proj.bias", "key_proj.bias"))


@pytest.mark.sparse
@pytest.mark.parametrize(("family", "head"), heads())
def test_one_sweep_moves_every_parameter(family, head):
    """Whatever has a gradient under full fine-tuning is updated, once."""
    class_name = CONFIGS[family][0] + head
    swept, full = build(family, class_name), build(family, class_name)
    batch = inputs(class_name)
    optimizer = HiFT(swept, "adam", lr=1e-2)
    before = {n: p.detach().clone() for n, p in swept.named_parameters()}
    updates = dict.fromkeys(before, 0)
    for _ in optimizer.groups:
        swept(**batch).loss.backward()
        with_gradient = {n for n, p in swept.named_parameters() if p.grad is not None}
        assert with_gradient <= set(optimizer.active.parameters)
        for name in with_gradient:
            updates[name] += 1
        optimizer.step()
        optimizer.zero_grad()
    full(**batch).loss.backward()
    reached = {n for n, p in full.named_parameters() if p.grad is not None and p.grad.any()}
    moved = {n for n, p in swept.named_parameters() if not torch.equal(p, before[n])}
    assert moved >= {n for n in reached if not _may_stay(n)} and len(reached) >= 0.6 * len(before)
    assert {updates[n] for n in reached} == {1}


def test_embedding_parts_outside_the_embedding_module():
    opt = _by_unit(build("opt_350m", "OPTForCausalLM"))
    assert "model.decoder.project_in.weight" in opt["embeddings"]
    assert "model.decoder.project_out.weight" in opt["head"]
    assert any("final_layer_norm" in n for n in _by_unit(build("opt", "OPTForCausalLM"))["head"])
    bart = _by_unit(build("bart", "BartForConditionalGeneration"))
    assert "model.decoder.layernorm_embedding.weight" in bart["embeddings"]
    deberta = _by_unit(build("deberta_v2", "DebertaV2ForSequenceClassification"))
    assert {"deberta.encoder.rel_embeddings.weight", "deberta.encoder.LayerNorm.weight"} < set(
        deberta["embeddings"]
    )
    neox = _by_unit(build("gpt_neox", "GPTNeoXForCausalLM"))
    assert len(neox["embeddings"]) == 1  # its untied output head counts as head
    t5 = _by_unit(build("t5", "T5ForConditionalGeneration"))
    assert "encoder.final_layer_norm.weight" in t5["encoder.block.1"]
    assert t5["head"] == ("decoder.final_layer_norm.weight",)


class WithHead(nn.Module):
    """A table of tokens, two blocks, and a head called `name`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.tokens = nn.Embedding(9, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(2))
        self.add_module(name, nn.Linear(4, 2))


@pytest.mark.parametrize("name", ["ensemble", "members", "out"])
def test_a_head_is_a_head_whatever_letters_are_in_its_name(name):
    """And though it stands beside the tokens, as T5's `qa_outputs` does."""
    units = _by_unit(WithHead(name))
    assert units["head"] == (f"{name}.weight", f"{name}.bias")
    assert units["embeddings"] == ("tokens.weight",)


def test_a_tied_head_is_an_embedding_once():
    model = tiny(tied=True)
    units = find_units(model)
    assert "tokens.weight" in units[0].parameters
    assert units[-1].parameters == ("norm.weight", "norm.bias")


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5", "llama"])
def test_the_meta_device_gives_the_same_units(family):
    class_name = dict(pairs())[family]
    with torch.device("meta"):
        meta = build(family, class_name)
    assert find_units(meta) == find_units(build(family, class_name))


def test_llama_has_35_units_when_the_head_is_split_as_in_the_authors_code():
    """32 blocks + embeddings + final norm + lm_head: k = 35 fits the logs (shared paper data)."""
    import transformers as T

    with torch.device("meta"):
        model = T.LlamaForCausalLM(T.LlamaConfig(num_hidden_layers=32, vocab_size=32000))
    assert len(find_units(model)) == 34
    units = find_units(model, split_head=True)
    assert [u.name for u in units[-2:]] == ["model.norm", "lm_head"] and len(units) == 35
    # LLaMA-7B's peak at m = 1, as printed in the paper's memory figure: 202.38M of 6738.42M
    groups = make_groups(find_units(model), group_size=1)
    assert max(g.numel for g in groups) == 202_383_360
    assert sum(g.numel for g in groups) == 6_738_415_616


@pytest.mark.parametrize(
    ("name", "m", "sizes"),
    [("six units", 1, [1] * 6), ("uneven", 4, [4, 2]), ("all", "all", [6])],
)
def test_groups_by_count(name, m, sizes):
    groups = make_groups(find_units(tiny()), group_size=m)
    assert [len(g.units) for g in groups] == sizes
    assert [g.index for g in groups] == list(range(len(groups)))


class Wrapped(nn.Module):
    """A plain torch model without composite layers: each linear layer is a unit."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU())
        self.out = nn.Linear(4, 2)


def test_a_plain_sequential_model():
    assert [u.name for u in find_units(Wrapped())] == ["net.0", "net.2", "head"]


def _peft(kind: str) -> nn.Module:
    import peft

    base = build("bert", "BertForSequenceClassification")
    task = peft.TaskType.SEQ_CLS
    targets = {"target_modules": ["query", "value"]}
    config = {
        "lora": lambda: peft.LoraConfig(task_type=task, r=2, **targets),
        "adalora": lambda: peft.AdaLoraConfig(task_type=task, init_r=3, total_step=100, **targets),
        "ia3": lambda: peft.IA3Config(task_type=task, feedforward_modules=[], **targets),
        "prefix": lambda: peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=3),
        "prompt": lambda: peft.PromptTuningConfig(task_type=task, num_virtual_tokens=3),
        "ptuning": lambda: peft.PromptEncoderConfig(
            task_type=task, num_virtual_tokens=3, encoder_hidden_size=8
        ),
    }[kind]()
    return peft.get_peft_model(base, config)


@pytest.mark.parametrize("kind", ["lora", "adalora", "ia3", "prefix", "prompt", "ptuning"])
def test_peft_models_train_their_adapters_and_nothing_else(kind):
    model = _peft(kind)
    adapters = {n for n, p in model.named_parameters() if p.requires_grad}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = HiFT(model, "adamw", lr=1e-2)
    assert {n for g in optimizer.groups for n in g.parameters} == adapters
    assert len(optimizer.groups) == (5 - 1 if kind in ("lora", "adalora", "ia3") else 2)
    batch = inputs("BertForSequenceClassification")
    for _ in range(2 * len(optimizer.groups)):  # LoRA's A moves once B has
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == adapters or (kind == "adalora" and moved < adapters and len(moved) > 8)
