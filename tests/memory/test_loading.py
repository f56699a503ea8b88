"""What loading brings to the device, by type, and its peak: Mixed^Hi must not pass through fp32 there."""

import gc
from collections import Counter

import lightning
import pytest
import torch
from factories import make_spec
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from memory_cases import setting
from torch.utils._python_dispatch import TorchDispatchMode

from benchmark.measure.load_peak import LoadPeak
from benchmark.measure.training import Measure
from benchmark.memory.training import Training
from benchmark.models import registry
from benchmark.run import recipe

STAND_IN = torch.device("meta")  # a device of its own that every machine has
USUAL = {"model": "tiny-bert", "data": "twin", "epochs": None, "max_steps": 7, "max_length": 24}


class Moved(TorchDispatchMode):
    """Bytes by type of every tensor that an operation copies from the host to the stand-in."""

    def __init__(self):
        super().__init__()
        self.bytes = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].is_cpu and result.is_meta:
            self.bytes[result.dtype] += result.nbytes
        return result


class Accelerator(CPUAccelerator):
    def setup_device(self, device):
        assert device == STAND_IN


class OneStandIn(SingleDeviceStrategy):
    def teardown(self):
        """Lightning would move the model back, and what lies on the meta device has no values."""


class OnStandIn(lightning.Trainer):
    """The recipe's trainer, on a machine whose accelerator is the stand-in."""

    def __init__(self, **settings):
        there = {"accelerator": Accelerator(), "strategy": OneStandIn(device=STAND_IN)}
        super().__init__(**settings | there)


class Loaded(Exception):
    """The model has arrived and its optimizer is there: no step is needed."""


@pytest.fixture(scope="module")
def sizes():
    """Numbers of weights: of the tiny BERT, of its embeddings, and the bytes of its buffers."""
    model = registry.load_model(
        registry.source("tiny-bert"), "sequence_classification", 0, num_labels=2
    )
    low = sum(p.numel() for n, p in model.named_parameters() if ".embeddings." in n)
    return sum(p.numel() for p in model.parameters()), low, sum(b.nbytes for b in model.buffers())


@pytest.fixture
def moved(monkeypatch, tmp_path):
    """Run a spec up to its first step; what moved until then."""

    def loaded(*_):
        raise Loaded

    def run(**fields):
        monkeypatch.setattr(lightning, "Trainer", OnStandIn)
        monkeypatch.setattr(Measure, "on_fit_start", loaded)
        with Moved() as seen, pytest.raises(Loaded):
            recipe.run(make_spec(**USUAL | fields), tmp_path)
        return seen.bytes

    return run


def test_a_mixed_hi_run_brings_low_weights_and_the_first_groups_masters_alone(moved, sizes):
    total, embeddings, _ = sizes
    seen = moved(strategy="hift", precision="mixed_hi")
    assert seen[torch.bfloat16] == 2 * total
    assert seen[torch.float32] == 4 * embeddings < 4 * total / 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("strategy", ["full", "hift"])
def test_without_mixed_hi_weights_arrive_in_fp32(moved, sizes, strategy, precision):
    """Autocast lowers operations, not weights."""
    seen = moved(strategy=strategy, precision=precision)
    assert seen[torch.float32] == 4 * sizes[0]
    assert seen[torch.bfloat16] == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16", "mixed_hi"])
def test_the_record_holds_the_peak_of_loading_and_mixed_hi_lowers_it(precision, sizes, tmp_path):
    total, embeddings, buffers = sizes
    spec = make_spec(strategy="hift", precision=precision, **USUAL | {"max_steps": 1})
    memory = recipe.run(spec, tmp_path).memory
    weights = 2 * total + 4 * embeddings if precision == "mixed_hi" else 4 * total
    assert memory.load_peak == weights + buffers
    assert memory.peak == memory.peak_allocated > memory.load_peak


def test_a_spec_that_fails_while_it_is_loaded_leaves_no_counter_on(tmp_path):
    from torch.utils._python_dispatch import _get_current_dispatch_mode

    from benchmark.errors import UserError

    spec = make_spec(strategy="hift", options={"group_size": 99}, **USUAL)
    with pytest.raises(UserError, match="group_size 99"):
        recipe.run(spec, tmp_path)
    assert _get_current_dispatch_mode() is None


@pytest.mark.parametrize(
    ("more", "weight", "first"),
    [
        ({}, 4, 0),
        ({"precision": "mixed_hi"}, 2, 4),
        ({"precision": "mixed_hi", "options": {"idle": "keep"}}, 2, None),
        ({"precision": "mixed"}, 2, None),
        ({"precision": "mixed", "strategy": "full"}, 2, None),
    ],
    ids=str,
)
def test_a_measured_step_is_lowered_before_it_is_loaded(more, weight, first):
    """Masters on the device: none, those of the first group, or all of them (None)."""
    training = Training(setting("llama", **more))
    model = training.model
    total = sum(p.numel() for p in model.parameters())
    embeddings = model.get_input_embeddings().weight.numel()
    masters = 4 * total if first is None else first * embeddings
    buffers = sum(b.nbytes for b in model.buffers())
    assert training.load_peak == weight * total + masters + buffers


def test_what_is_lowered_only_after_it_was_loaded_is_counted():
    """The defect itself: fp32 weights, their bf16 copies beside them."""
    model = torch.nn.Linear(100, 100, bias=False)
    with LoadPeak(model, torch.device("cpu")) as peak:
        model.weight.data = model.weight.data.to(torch.bfloat16)
    assert peak.bytes == (4 + 2) * 10_000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "mixed_hi"])
def test_on_a_gpu_mixed_hi_is_lowered_before_it_is_loaded(precision):
    """42M weights: the allocator's granularity is far below the tolerance."""
    gc.collect()
    before = torch.cuda.memory_allocated()
    training = Training(setting("llama", precision=precision).but(model="gpt2-12x512"), "cuda")
    total = sum(p.numel() for p in training.model.parameters())
    first = training.optimizer.active.numel
    weights = 2 * total + 4 * first if precision == "mixed_hi" else 4 * total
    assert training.load_peak - before == pytest.approx(weights, rel=0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_the_record_holds_the_peak_of_a_lowered_model(tmp_path):
    """From the top, so that the first group, whose masters are there, is the small one of the head."""
    loaded = {}
    for precision in ("fp32", "mixed_hi"):
        gc.collect()
        before = torch.cuda.memory_allocated()
        fields = USUAL | {"model": "minilm", "options": {"order": "top2down"}}
        spec = make_spec(strategy="hift", precision=precision, **fields)
        memory = recipe.run(spec, tmp_path).memory
        loaded[precision] = memory.load_peak - before
        assert memory.peak == max(memory.peak_allocated, memory.load_peak)
    assert loaded["mixed_hi"] == pytest.approx(loaded["fp32"] / 2, rel=0.05)
