"""LiveBytes against bytes counted by hand on small graphs, and against torch's own counters on a GPU."""

import pytest
import torch

from benchmark.engine import HiFT, find_units, make_plan
from benchmark.engine.ledger import Ledger
from benchmark.measure.live_bytes import LiveBytes
from benchmark.measure.optimizer_state import state_bytes, state_tensors

KB = 256  # float32 numbers in 1,024 bytes


def test_what_is_resident_and_the_base_are_there_from_the_start():
    a, b = torch.zeros(KB), torch.zeros(2 * KB)
    with LiveBytes([a, b, a], base=100) as counter:
        pass
    assert counter.live == counter.peak == 3 * 1024 + 100


def test_temporaries_are_freed_and_the_peak_stays():
    a = torch.zeros(KB)
    with LiveBytes([a]) as counter:
        b = a + 1
        assert counter.live == 2048
        c = b * 2
        assert counter.live == 3072
        del b
        assert counter.live == 2048
        d = c - 1
        assert counter.live == 3072
        del c, d
        assert counter.live == 1024
    assert counter.peak == 3072


def test_views_count_once_and_keep_their_storage_alive():
    with LiveBytes([]) as counter:
        whole = torch.zeros(KB)
        part = whole[:10].view(2, 5).t()
        assert counter.live == 1024
        del whole
        assert counter.live == 1024, "the view holds the whole storage"
        del part
        assert counter.live == 0


def test_a_view_made_before_counts_its_whole_storage_once():
    whole = torch.zeros(KB)
    with LiveBytes([whole[:3], whole[3:]]) as counter:
        whole[5:].add_(1)
    assert counter.peak == 1024


def test_a_storage_that_is_resized_counts_at_the_size_that_it_has():
    a = torch.zeros(KB)
    with LiveBytes([a]) as counter:
        b = torch.zeros(2 * KB)
        b.untyped_storage().resize_(0)
        assert counter.live == 1024
        b.untyped_storage().resize_(4096)
        assert counter.live == 5120
        a.untyped_storage().resize_(0)
        del b
        assert counter.live == 0
    assert counter.peak == 5120
    a.untyped_storage().resize_(1024)
    assert counter.live == 0, "no longer counted"


def test_in_place_makes_nothing_new():
    a = torch.zeros(KB)
    with LiveBytes([a]) as counter:
        a.add_(1).mul_(2).clamp_(0, 1)
    assert counter.peak == 1024


def test_dtypes_count_their_own_size():
    with LiveBytes([]) as counter:
        tensors = [torch.zeros(KB, dtype=t) for t in (torch.float64, torch.bfloat16, torch.int8)]
        assert counter.live == 2048 + 512 + 256
        del tensors


def test_saved_activations_and_gradients_of_a_small_graph():
    """The sum of exp(x w): exp saves its result; mul saves its two factors, which are leaves."""
    x, w = torch.zeros(KB), torch.zeros(KB, requires_grad=True)
    with LiveBytes([x, w]) as counter:
        loss = (x * w).exp().sum()
        # the product is freed once exp has its result, which the graph keeps; the sum is one number
        assert counter.live == 3 * 1024 + 4
        assert counter.peak == 4 * 1024, "product and exponential at once"
        loss.backward()
        del loss
        assert counter.live == 3 * 1024, "x, w and w's gradient; the graph is gone"
        assert w.grad.nbytes == 1024
        w.grad = None
        assert counter.live == 2 * 1024


def test_a_graph_through_frozen_weights_keeps_no_more_than_a_trained_one():
    """Activations are saved down to the lowest trained layer; all linear layers have the same size."""

    def peak(trained):
        layers = [torch.nn.Linear(64, 64, bias=False) for _ in range(6)]
        for i, layer in enumerate(layers):
            layer.requires_grad_(i in trained)
        model = torch.nn.Sequential(*[m for layer in layers for m in (layer, torch.nn.Tanh())])
        with LiveBytes(model.parameters()) as counter:
            model(torch.zeros(32, 64)).sum().backward()
        return counter.peak

    top, all_of_them = peak({5}), peak(set(range(6)))
    assert top < peak({0}) < all_of_them
    # each of the five other layers saves at least an activation of 32 × 64
    assert all_of_them - top >= 5 * 32 * 64 * 4


def test_what_is_counted_elsewhere_stands_in_the_base_alone():
    state = torch.zeros(KB)
    with LiveBytes([state], counted_elsewhere=[state], base=1024) as counter:
        state.add_(1)
    assert counter.peak == 1024


def test_a_new_tensor_in_the_place_of_one_counted_elsewhere_counts():
    """The allocator may reuse the address of freed state at once for a new tensor."""
    with LiveBytes([], counted_elsewhere=[state := torch.zeros(KB)]) as counter:
        del state
        tensors = [torch.zeros(KB) for _ in range(50)]
        assert counter.live == 50 * 1024
        del tensors


def test_freeing_after_the_mode_is_off_does_no_harm():
    with LiveBytes([]) as counter:
        a = torch.zeros(KB)
    del a
    assert counter.peak == 1024


def test_full_training_step_equals_the_closed_form():
    """AdamW on one matrix: the peak has at least weight, gradient and two moments; the moments stay."""
    weight = torch.nn.Parameter(torch.zeros(64, 64))
    optimizer = torch.optim.AdamW([weight], foreach=False)
    size = weight.nbytes
    with LiveBytes([weight]) as counter:
        (weight * 2.0).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert counter.live == 3 * size + 4, "weight, two moments and the step count"
    assert counter.peak >= 4 * size + 4


@pytest.mark.gpu
def test_equals_torchs_own_counter_on_a_gpu():
    """Every size is a multiple of the allocator's block of 512 bytes, so that both count the same."""
    device = torch.device("cuda")
    layers = [torch.nn.Linear(256, 256) for _ in range(4)]
    model = torch.nn.Sequential(*[m for layer in layers for m in (layer, torch.nn.GELU())]).to(
        device
    )
    x = torch.randn(64, 256, device=device)
    model(x).sum().backward()  # cuBLAS takes its workspace now
    model.zero_grad()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with LiveBytes([*model.parameters(), x]) as counter:
        start = counter.live
        model(x).square().sum().backward()
    torch.cuda.synchronize()
    grown = torch.cuda.max_memory_allocated() - before
    assert counter.peak - start == pytest.approx(grown, rel=0.02)


@pytest.mark.parametrize("master", ["none", "all"])
def test_state_and_masters_that_a_step_writes_in_place_count_once(master):
    model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(3)))
    low = {"low_dtype": torch.bfloat16} if master == "all" else {}
    optimizer = HiFT(model, "adamw", lr=1e-3, group_size="all", master=master, **low)
    parameters = list(model.parameters())
    dtype = parameters[0].dtype
    for _ in range(2):  # the first step creates the state
        model(torch.ones(2, 16, dtype=dtype)).sum().backward()
        state = state_bytes(optimizer)["device"]
        counter = LiveBytes(
            [*parameters, *(p.grad for p in parameters)],
            counted_elsewhere=state_tensors(optimizer),
            base=state["optimizer_state"] + state["master"],
        )
        with counter:
            optimizer.step()
        optimizer.zero_grad()
    plan = make_plan(find_units(model), group_size="all")
    ledger = Ledger.of(model, plan, weight_size=dtype.itemsize, master=master)
    after = ledger.at(2)  # the gradients are gone after zero_grad
    assert counter.live == after.device - after.gradients
