"""Measure on runs whose cost is computed by hand: ratios, memory, tokens and times."""

import math

import pytest
import torch
from factories import make_spec

from benchmark.memory import simulate
from benchmark.memory.setting import Setting
from benchmark.models import registry
from benchmark.records import record as records
from benchmark.run import recipe

USUAL = {
    "model": "tiny-bert",
    "data": "mirror",
    "epochs": None,
    "max_steps": 14,
    "batch_size": 4,
    "max_length": 16,
    "lr": 1e-3,
}
UNITS = ["embeddings", *(f"layer.{i}." for i in range(4)), ("pooler", "classifier")]
CONSTANT = {"sentence": ["the film is good"] * 40, "label": [1, 0] * 20}


@pytest.fixture(scope="module")
def known():
    """What `run` returned, by spec."""
    return {}


@pytest.fixture
def run(mirror, tmp_path, known):
    """A function that trains on equal rows, so that all batches cost the same; returns record and curve.

    Tests share the run of a spec. One on other rows has a spec that no other test has.
    """
    mirror(train=CONSTANT, validation=CONSTANT)

    def run(strategy="full", options=None, **fields):
        spec = make_spec(strategy=strategy, options=options or {}, **(USUAL | fields))
        if spec.hash not in known:
            record = recipe.run(spec, tmp_path / "results")
            assert record.status == "success", record.error
            known[spec.hash] = record, records.read_curve(tmp_path / "results" / record.curve)
        return known[spec.hash]

    return run


@pytest.fixture(scope="module")
def sizes():
    """Number of parameters of each unit of the tiny BERT, bottom to top, selected by name."""
    model = registry.load_model(
        registry.source("tiny-bert"), "sequence_classification", 0, num_labels=2
    )
    sizes = [
        sum(p.numel() for n, p in model.named_parameters() if any(part in n for part in parts))
        for parts in ((u,) if isinstance(u, str) else u for u in UNITS)
    ]
    assert sum(sizes) == sum(p.numel() for p in model.parameters())
    return sizes


def test_full_trains_everything_at_every_step(run, sizes):
    record, curve = run()
    total = sum(sizes)
    assert set(curve["trainable_ratio"]) == {1.0}
    params = record.params
    assert (params.total, params.trainable_ever, params.trainable_peak_per_step) == (total,) * 3
    assert (params.ratio_peak, params.ratio_mean, params.groups) == (1.0, 1.0, 1)


@pytest.mark.parametrize(
    ("options", "turns"), [({}, [0, 1, 2, 3, 4, 5]), ({"order": "top2down"}, [5, 4, 3, 2, 1, 0])]
)
def test_hifts_ratio_at_each_step_is_its_groups_share(run, sizes, options, turns):
    record, curve = run("hift", options)
    groups = [turns[step % 6] for step in range(14)]
    assert curve["group"] == groups
    ratios = [sizes[group] / sum(sizes) for group in groups]
    assert curve["trainable_ratio"] == pytest.approx(ratios, rel=1e-12)
    params = record.params
    assert params.ratio_peak == pytest.approx(max(sizes) / sum(sizes))
    assert params.ratio_mean == pytest.approx(sum(ratios) / 14)
    assert params.trainable_peak_per_step == max(sizes)
    assert (params.trainable_ever, params.groups) == (sum(sizes), 6)


def test_hifts_rate_is_constant_within_a_sweep(run):
    _, curve = run("hift", max_steps=18)
    assert curve["lr"] == pytest.approx([1e-3] * 6 + [2e-3 / 3] * 6 + [1e-3 / 3] * 6)


def test_what_never_trained_is_not_counted_as_trained(run, sizes):
    record, _ = run("hift", max_steps=2)
    assert record.params.trainable_ever == sizes[0] + sizes[1]
    head, _ = run("head")
    assert head.params.trainable_ever == head.params.trainable_peak_per_step == 64 * 2 + 2


def test_lora_counts_its_own_and_the_heads_parameters(run):
    record, curve = run("lora", {"r": 4})
    # query and value of four layers, two factors of 4 × 64 each; and the head of 64 × 2 + 2
    assert record.params.trainable_peak_per_step == 4 * 2 * 2 * 4 * 64 + 64 * 2 + 2
    assert len(set(curve["trainable_ratio"])) == 1


def test_memory_of_full_fine_tuning_in_its_parts(run, sizes):
    memory = run()[0].memory
    size = 4 * sum(sizes)
    assert (memory.kind, memory.device, memory.peak_reserved) == (
        "counted_cpu_tensors",
        "cpu",
        None,
    )
    assert memory.gradients == size
    states = memory.optimizer_state - 2 * size
    assert 0 <= states < 1000, "two moments, and a step count per tensor"
    assert 0 <= memory.parameters - size < 10_000, "the weights and a few buffers of positions"
    assert memory.peak_allocated >= memory.parameters + memory.gradients + memory.optimizer_state
    assert (memory.master, memory.host_state) == (0, 0)
    assert memory.host_rss_peak > 10 * size


def test_memory_of_hift_is_that_of_its_largest_group(run, sizes):
    full, hift = (run(name, idle)[0].memory for name, idle in (("full", {}), ("hift", {})))
    size, largest = 4 * sum(sizes), 4 * max(sizes)
    assert hift.gradients == largest
    assert 0 <= hift.optimizer_state - 2 * largest < 1000
    # the host holds the state of all groups but the active one; most when the smallest is active
    smallest = 4 * min(sizes)
    assert 0 <= hift.host_state - 2 * (size - smallest) < 1000
    # the paper: 4 P against P + 3 P_max, activations apart
    assert full.peak_allocated - hift.peak_allocated >= 0.8 * 3 * (size - largest)


def test_the_peak_holds_the_whole_step_under_accumulation(run):
    """All batches are equal, so no later micro-batch is larger; the optimizer step must still be counted."""
    at_once, in_four = run()[0].memory, run(accumulate=4)[0].memory
    assert in_four.peak_allocated >= sum(
        (in_four.parameters, in_four.gradients, in_four.optimizer_state)
    )
    # from the second micro-batch on, gradients exist during forward and backward
    assert in_four.peak_allocated >= at_once.peak_allocated


def test_a_longer_batch_raises_the_peak_whenever_it_comes(mirror, run):
    short = run()[0].memory.peak_allocated
    one_long = [*CONSTANT["sentence"][:-1], "good " * 60]
    rows = {"sentence": one_long, "label": CONSTANT["label"]}
    mirror("longer", train=rows, validation=CONSTANT)
    assert run(max_length=64, epochs=1, max_steps=None)[0].memory.peak_allocated > 1.1 * short


def test_counted_steps_have_no_time_and_the_others_do(run):
    record, curve = run(max_steps=9)
    timed = [ms for ms in curve["step_ms"] if not math.isnan(ms)]
    assert [math.isnan(ms) for ms in curve["step_ms"]] == [True] * 2 + [False] * 7
    assert record.train.step_ms_median == pytest.approx(sorted(timed)[3], abs=1e-3)
    assert record.train.step_ms_p90 == max(timed)
    assert curve["seconds"] == sorted(curve["seconds"])
    assert sum(timed) / 1000 < record.train.seconds


def test_the_curve_has_the_peak_of_each_counted_step_and_the_state_on_the_host(run, sizes):
    record, curve = run()
    assert [math.isnan(peak) for peak in curve["peak_bytes"]] == [False] * 2 + [True] * 12
    assert max(curve["peak_bytes"][:2]) == record.memory.peak_allocated
    assert set(curve["host_bytes"]) == {0}

    record, curve = run("hift")
    counted = [peak for peak in curve["peak_bytes"] if not math.isnan(peak)]
    assert len(counted) == 12 and max(counted) == record.memory.peak_allocated, "two of each group"
    by_group = dict(zip(curve["group"][6:12], counted[6:], strict=True))
    assert max(by_group, key=by_group.get) == sizes.index(max(sizes))
    # after a first sweep all groups have state, and that of all but the next one waits
    waiting = [2 * 4 * (sum(sizes) - sizes[(step + 1) % 6]) for step in range(6, 14)]
    assert curve["host_bytes"][6:] == pytest.approx(waiting, abs=1000)
    assert max(curve["host_bytes"]) == record.memory.host_state


def test_the_load_of_other_processes_is_recorded(run):
    share = run()[0].train.others
    assert 0 <= share <= 1


def test_examples_and_tokens_are_counted_with_every_micro_batch(run):
    tokenizer = registry.load_tokenizer(registry.source("tiny-bert"))
    length = len(tokenizer(CONSTANT["sentence"][0])["input_ids"])
    record, curve = run(accumulate=3, batch_size=6, epochs=2, max_steps=None)
    # 40 rows: six batches of 6 and one of 4, accumulated as 3, 3 and 1
    assert curve["step"] == [1, 2, 3, 4, 5, 6]
    assert (record.train.steps, record.train.examples) == (6, 80)
    assert record.train.tokens == 80 * length


@pytest.mark.gpu
def test_on_a_gpu_the_allocators_peak_is_recorded(run):
    record, curve = run(seed=1)  # its own: the allocator's last peak is of this run
    memory = record.memory
    assert memory.kind == "cuda" and memory.device.startswith("cuda")
    assert memory.peak_reserved >= memory.peak_allocated
    assert memory.peak_allocated >= memory.parameters + memory.gradients
    assert memory.peak_allocated == max(curve["peak_bytes"]) >= torch.cuda.max_memory_allocated()


def test_operations_and_tokens_of_each_step_are_counted(run):
    """All rows are equal. So all steps of full fine-tuning cost the same; a step of HiFT costs less the
    higher its group is."""
    tokenizer = registry.load_tokenizer(registry.source("tiny-bert"))
    length = len(tokenizer(CONSTANT["sentence"][0])["input_ids"])
    (full, full_curve), (hift, hift_curve) = run(), run("hift", max_steps=12)
    assert set(full_curve["tokens"]) == {4 * length}
    assert full.train.group_tokens == [4 * length] and hift.train.group_tokens == [4 * length] * 6
    assert len(set(full_curve["flops"])) == 1
    assert full.train.flops == sum(full_curve["flops"])
    first, second = hift_curve["flops"][:6], hift_curve["flops"][6:]
    assert first == second
    assert first[1:] == sorted(first[1:], reverse=True)  # the embeddings need no matrix product
    assert max(first) < full_curve["flops"][0] < 3 * first[-1]


def test_the_tokens_of_a_group_are_those_of_its_own_steps(mirror, run):
    lengths = [2 + i % 9 for i in range(40)]
    rows = {"sentence": ["good " * n for n in lengths], "label": [1, 0] * 20}
    mirror("mixed", train=rows, validation=CONSTANT)
    record, curve = run("hift", epochs=2, max_steps=None)
    for group in range(6):
        tokens = [n for n, g in zip(curve["tokens"], curve["group"], strict=True) if g == group]
        mean = sum(tokens) / len(tokens)
        assert record.train.group_tokens[group] == pytest.approx(mean, abs=0.01)
    assert len(set(record.train.group_tokens)) > 1


@pytest.mark.parametrize(
    ("strategy", "options"),
    [("full", {}), ("hift", {}), ("hift", {"dwell": 3, "group_size": 2}), ("lora", {"r": 2})],
)
def test_the_peak_is_that_of_a_plain_loop_which_memory_simulates(run, strategy, options):
    """Batches are large, so that the peak lies at the end of the forward pass: Lightning by itself would have
    the gradients of the step before there."""
    record, curve = run(strategy, options, batch_size=40)
    case = Setting(
        model="tiny-bert",
        head="sequence_classification",
        strategy=strategy,
        options=options,
        batch_size=40,
        seq_len=int(curve["tokens"][0]) // 40,
    )
    simulated = simulate.peak(case, device="cpu").total
    assert record.memory.peak_allocated == pytest.approx(simulated, rel=0.01)
