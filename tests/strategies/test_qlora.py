"""QLoRA: the packed numbers are the paper's, and training is LoRA's over the unpacked weights."""

import copy

import pytest
import torch
from factories import make_spec, make_strategy

from benchmark.measure.trained import TrainedParameters
from benchmark.models import registry

pytest.importorskip("bitsandbytes")

NF4 = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
]
"""The 16 numbers, as appendix E of arXiv 2305.14314 prints them."""


def load(name="tiny-bert"):
    torch.manual_seed(0)
    model = registry.load_model(registry.source(name), "sequence_classification", 1).eval()
    ids = torch.randint(10, 900, (4, 12), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return model, batch | {"labels": torch.tensor([0, 1, 1, 0])}


def prepared(name, model, **options):
    torch.manual_seed(3)
    strategy = make_strategy(make_spec(strategy=name, options=options, lr=1e-2))
    return strategy, strategy.prepare(copy.deepcopy(model)).eval()


def unpacked(layer):
    """The weights (out, in): the layer's output for the unit vectors."""
    with torch.no_grad():
        made = layer(torch.eye(layer.in_features))
        return (made if layer.bias is None else made - layer.bias).T


def packed_layers(model):
    return {n: m for n, m in model.named_modules() if hasattr(m, "packed_numel")}


def test_each_64_weights_are_the_nearest_of_the_paper_s_numbers_times_their_largest():
    model, _ = load()
    _, ours = prepared("qlora", model, double=False)
    layers = packed_layers(ours)
    assert len(layers) == 4 * 6
    for name, layer in layers.items():
        loaded = name.removeprefix("base_model.model.").removesuffix(".base_layer")
        blocks = model.get_submodule(loaded).weight.detach().reshape(-1, 64)
        largest = blocks.abs().amax(1, keepdim=True)
        table = torch.tensor(NF4)
        nearest = table[(blocks / largest)[..., None].sub(table).abs().argmin(-1)] * largest
        found = unpacked(layer).reshape(-1, 64)
        torch.testing.assert_close(found, nearest, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("twin", ["tiny-bert", "tiny-gpt2"])
def test_training_is_that_of_lora_over_the_unpacked_weights(twin):
    """GPT-2's Conv1D, which is transposed, becomes a linear layer."""
    model, batch = load(twin)
    strategy, ours = prepared("qlora", model, targets=["query"] if twin == "tiny-bert" else None)
    plain = copy.deepcopy(model)
    with torch.no_grad():
        for name, layer in packed_layers(ours).items():
            loaded = name.removeprefix("base_model.model.").removesuffix(".base_layer")
            weight = plain.get_submodule(loaded).weight
            weight.copy_(unpacked(layer).T if twin == "tiny-gpt2" else unpacked(layer))
    names = None if twin == "tiny-bert" else ["c_attn", "c_proj", "c_fc"]
    lora, theirs = prepared("lora", plain, targets=names or ["query"])
    after = {}
    for key, method, wrapped in (("ours", strategy, ours), ("theirs", lora, theirs)):
        optimizer, _ = method.optimizer(wrapped, 3)
        for _ in range(3):
            wrapped(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        after[key] = {n: p for n, p in wrapped.named_parameters() if p.requires_grad}
    assert after["ours"].keys() == after["theirs"].keys()
    for name, value in after["ours"].items():
        torch.testing.assert_close(value, after["theirs"][name], atol=2e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize(("double", "bits"), [(False, 4 + 32 / 64), (True, 4 + 8 / 64)])
def test_the_packed_weights_and_their_scales_are_counted(double, bits):
    model, _ = load()
    _, ours = prepared("qlora", model, double=double)
    packed = sum(layer.packed_numel for layer in packed_layers(ours).values())
    adapters = sum(p.numel() for p in ours.parameters() if p.requires_grad)
    new_head = sum(p.numel() for p in model.classifier.parameters())
    whole = sum(p.numel() for p in model.parameters())
    assert TrainedParameters(ours).total == whole + adapters, "peft keeps the head beside its copy"
    assert adapters > new_head
    of_layers = sum(
        b.nbytes
        for layer in packed_layers(ours).values()
        for n, b in layer.named_buffers()
        if n in ("weight", "scales")
    )
    assert of_layers == packed * bits / 8
