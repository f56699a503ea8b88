"""`fit`: peaks from two depths, the roofline against sums written out, and which settings it chooses."""

import dataclasses
import json
import re
import tempfile

import pytest
import transformers as T
import yaml
from memory_cases import FAMILIES, setting

from benchmark.errors import UserError
from benchmark.memory import bounds, depth, roofline, search, simulate
from benchmark.memory.setting import Setting
from benchmark.models import shapes

GPU = roofline.Gpu(bf16=2e12, fp32=1e12, hbm=1e12, pcie=1e10)


def batched(values, n):
    return [values[start : start + n] for start in range(0, len(values), n)]


def deep(family: str, blocks: int) -> str:
    folder = tempfile.mkdtemp(prefix=f"deep_{family}_")
    name, config = FAMILIES[family]
    made = config()
    setattr(made, made.attribute_map.get("num_hidden_layers", "num_hidden_layers"), blocks)
    made.architectures = [name]
    made.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("gpt2", {"options": {"group_size": 2}, "optimizer": "adafactor"}),
        ("llama", {"precision": "mixed_hi", "checkpointing": True, "loss": "chunked"}),
        ("llama", {"precision": "bf16_weights", "options": {"weights": "stream"}}),
        ("gpt2", {"options": {"partition": "modules", "update": "in_backward", "piece": 4096}}),
    ],
    ids=str,
)
def test_two_depths_give_the_peak_of_any(family, more):
    """Seven blocks, of which three and five are simulated; of ten six and eight in groups of two."""
    blocks = 10 if "group_size" in more.get("options", {}) else 7
    case = setting(family, model=deep(family, blocks), seq_len=16, **more)
    found, whole = depth._peak(case, "cuda"), simulate.peak(case)
    assert found.total == pytest.approx(whole.total, rel=0.01)
    assert found.host == pytest.approx(whole.host, rel=0.001)
    assert (found.moment, found.groups) == (whole.moment, whole.groups)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_shallow_models_are_cut_as_the_deep_one(m):
    """The highest group holds as many units; what differs are groups of m blocks, whole pairs of blocks."""
    for blocks in range(40, 48):
        depths = depth.shallow(blocks, 2, m)
        assert depths[0] < depths[1] < 40
        for each in depths:
            cut = [len(group) for group in batched(range(each + 2), m)]
            assert len(cut) >= 3 and (blocks - each) % 2 == 0
            assert cut[-1] == [len(group) for group in batched(range(blocks + 2), m)][-1]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("mistral-7b", 7_248_023_552),
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen2.5-14b", 14_770_033_664),
        ("qwen2.5-72b", 72_706_203_648),
    ],
)
def test_shapes_have_as_many_parameters_as_their_checkpoints(name, parameters):
    """The totals in the safetensors headers on the Hub."""
    assert sum(p.numel() for p in shapes.build(name).parameters()) == parameters


def test_a_step_of_all_weights_costs_six_operations_a_weight_and_token():
    everything = Setting(model="gpt2-12x512", batch_size=8, seq_len=2, options={"group_size": 14})
    cost = roofline.cost(everything, 0, 1, GPU)
    tokens, total = 16, roofline.sizes(everything).total
    assert cost.flops == pytest.approx(6 * tokens * total, rel=0.02)
    read = 2 * 4 * total  # fp32 weights, forward and back
    assert cost.seconds == pytest.approx(max(cost.flops / GPU.fp32, read / GPU.hbm), rel=0.1)
    assert cost.moved == 0 and cost.share == 1
    low = dataclasses.replace(everything, precision="bf16_weights", batch_size=4096)
    assert roofline.cost(low, 0, 1, GPU).seconds == pytest.approx(
        512 * 6 * tokens * total / GPU.bf16, rel=0.02
    )


def test_a_group_s_state_comes_and_goes_and_streamed_blocks_come_twice():
    """14 groups of 100 bytes each; the way back is over the blocks above the group."""
    resident = Setting(model="gpt2-12x512", precision="bf16_weights")
    sizes = roofline.sizes(resident)
    assert roofline.cost(resident, 1400, 2, GPU).moved == 200
    assert roofline.cost(resident.but(options={"idle": "keep"}), 1400, 2, GPU).moved == 0
    moved = roofline.cost(resident.but(options={"weights": "stream"}), 1400, 1, GPU).moved
    back = sum(sum(sizes.units[i:]) for i in range(14)) / 14 / sizes.total
    active = sizes.total / 14
    assert moved == pytest.approx(200 + 2 * (sizes.streamed * (1 + back) + active))
    waiting = resident.but(checkpointing=True, options={"idle": "keep", "boundaries": "host"})
    inputs = 12 * (8 * 512) * 512 * 2  # of 12 blocks, 8 x 512 tokens, 512 wide, in bf16
    assert roofline.cost(waiting, 1400, 3, GPU).moved == pytest.approx(3 * 2 * back * inputs)


def test_modules_are_smaller_groups_of_the_same_weights():
    units, modules = (
        roofline.sizes(Setting(model="llama-7b", options={"partition": kind}))
        for kind in search.PARTITIONS
    )
    assert (len(units.units), len(modules.units)) == (34, 2 + 7 * 32)
    assert units.total == modules.total and modules.largest(1) == 32000 * 4096 + 4096
    assert units.multiplied == modules.multiplied == units.total - 32000 * 4096


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"precision": "mixed_hi", "optimizer": "sgdm", "checkpointing": True},
        {"options": {"update": "in_backward", "weights": "stream"}, "precision": "mixed_hi"},
        {},
        {"options": {"idle": "keep", "group_size": 4}, "loss": "chunked"},
        {"options": {"boundaries": "host"}, "checkpointing": True, "loss": "chunked"},
    ],
    ids=str,
)
def test_no_bound_is_above_what_is_simulated(more):
    options = {"idle": "cpu", "update": "step", "group_size": 1, **more.get("options", {})}
    case = setting("llama", **{**more, "options": options})
    found = simulate.peak(case)
    state = bounds.state_bytes(case)
    each = {"adamw": 8, "sgdm": 4}[case.optimizer] + 4 * (case.precision == "mixed_hi")
    assert state == pytest.approx(each * roofline.sizes(case).total, rel=0.01)
    assert 0.2 * found.total < bounds.on_device(case, state) <= found.total
    assert 0.9 * found.host <= bounds.on_host(case, state) <= found.host


def made(**sizes) -> simulate.Peak:
    names = [f.name for f in dataclasses.fields(simulate.Peak)]
    usual = dict.fromkeys(names, 0) | {"moment": "step", "units": (), "moments": {}}
    return simulate.Peak(
        **usual
        | {"parameters": sizes["total"]}
        | {name: sizes[name] for name in ("host", "groups")}
    )


@pytest.fixture
def needs(monkeypatch):
    """A memory model in place of simulation: what each knob takes away. Notes what was asked."""
    asked = []

    def peak(case, device="cuda"):
        asked.append(case)
        options = case.options
        gib = 40 + 8 * case.batch_size + 4 * case.group_size + 30 * (options["idle"] == "keep")
        gib -= 20 * (options["weights"] == "stream") + 4 * (options["partition"] == "modules")
        gib = gib / 2 if case.checkpointing else gib
        gib -= options.get("boundaries") in ("host", "parts")
        host = {"adamw": 12, "adamw8bit": 7, "adafactor": 6, "sgd": 4}[case.optimizer]
        host -= 4 * (case.precision != "mixed_hi")
        host *= options["idle"] == "cpu"
        return made(total=int(gib * 2**30), host=int(host * 2**30), groups=14)

    monkeypatch.setattr(depth, "peak", peak)
    monkeypatch.setattr(bounds, "state_bytes", lambda case: peak(in_host_memory(case)).host * 1.1)
    return asked


def in_host_memory(case):
    return case.but(options={**case.options, "idle": "cpu"})


def answers(budget, host=None):
    given = {"tokens": 256, "seq_len": 64, "on": GPU}
    gib = host and host * 2**30
    return list(search.search("gpt2-12x512", budget * 2**30, gib, **given))


def test_most_is_trained_in_a_step_that_is_hardly_longer_than_the_shortest(needs):
    """Where everything fits; against a look at every setting."""
    roomy = answers(1000)
    assert [(a.setting.precision, a.setting.optimizer) for a in roomy] == [*search.RECIPES]
    [first, *_] = roomy
    usual = {"model": "gpt2-12x512", "precision": "mixed_hi", "optimizer": "adamw", "seq_len": 64}
    state = 12 * 2**30 * 1.1
    every = [
        roofline.cost(each, state, 4 // each.batch_size, GPU)
        for each in search._candidates(usual, 4).values()
    ]
    shortest = min(cost.seconds for cost in every)
    shares = [cost.share for cost in every if cost.seconds <= 1.1 * shortest]
    assert first.cost.share == max(shares) > min(shares)
    assert first.cost.seconds <= 1.1 * shortest and not first.setting.checkpointing


def test_little_is_simulated(needs):
    tight = answers(23)[0]
    assert tight.setting.checkpointing and tight.peak.total <= 23 * 2**30
    assert len(needs) < 25 * len(search.RECIPES)


def test_memory_of_either_kind_decides_where_state_and_weights_are(needs):
    assert answers(60, host=8)[0].setting.options["idle"] == "keep"
    assert isinstance(answers(23, host=8)[0], search.Missing)
    assert answers(15, host=12)[0].setting.options["weights"] == "stream"


def test_inputs_of_blocks_wait_on_the_host_where_nothing_else_fits(needs):
    found = {budget: answers(budget)[0] for budget in (14, 13, 12)}
    assert "boundaries" not in found[14].setting.options
    kind = found[13].setting.options["boundaries"]
    assert kind in ("host", "parts") and found[13].setting.checkpointing
    assert f'checkpointing="{kind}"' in found[13].call() and "boundaries=" not in found[13].call()
    assert f"--option boundaries={kind}" in found[13].command()
    assert isinstance(found[12], search.Missing)


def test_what_is_found_can_be_trained(monkeypatch):
    """An update inside the backward pass takes all tokens of a step at once: it cannot accumulate."""

    def peak(case):
        inside = case.options["update"] == "in_backward"
        return made(total=case.batch_size if inside else 9, host=0, groups=14)

    monkeypatch.setattr(depth, "peak", peak)
    monkeypatch.setattr(bounds, "on_device", lambda setting, state: 0)
    for budget, kind in ((4, search.Found), (2, search.Missing)):
        given = {"tokens": 256, "seq_len": 64, "on": GPU}
        for each in search.search("gpt2-12x512", budget, None, **given):
            assert isinstance(each, kind)
            assert (each.setting.options["update"], each.setting.batch_size) == ("in_backward", 4)


def test_what_is_missing_is_said(needs):
    masters, fp32, *_ = answers(23, host=11)
    assert isinstance(fp32, search.Found)
    assert masters.lacks(23 * 2**30, 11 * 2**30) == "12.00 GiB of host memory, 11.00 GiB given"
    assert all(isinstance(each, search.Missing) for each in answers(1))


def test_the_command_line_says_what_to_run_and_what_is_missing(needs, cli):
    code, out, err = cli(
        *("fit", "gpt2-12x512", "--budget", "23GiB", "--host", "7GiB", "--tokens", "256"),
        *("--seq-len", "64", "--format", "json"),
    )
    rows = json.loads(out)
    assert (
        code == 0 and rows[0]["optimizer"] == "adamw8bit" and rows[0]["device_bytes"] <= 23 * 2**30
    )
    assert "adamw in mixed_hi needs 12.00 GiB of host memory, 7.00 GiB given" in err
    assert rows[0]["command"] in err and "--checkpointing" in rows[0]["command"]
    assert rows[0]["call"] in err and "master=lower(model, torch.bfloat16)" in rows[0]["call"]
    assert rows[0]["spec"]["accumulate"] * rows[0]["spec"]["batch_size"] == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("llama-7b", "--budget", "8XB"), "--budget: .*8XB"),
        (("llama-7b", "--budget", "8GiB", "--host", "much"), "--host: .*much"),
        (("lama-7b", "--budget", "8GiB"), "llama-7b"),
        (("llama-7b", "--budget", "8GiB", "--gpu", "rtx4080"), "rtx4080.*rtx4090"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(arguments, said, cli):
    code, out, err = cli("fit", *arguments)
    lines = [line for line in err.splitlines() if line.startswith("hift-bench: ")]
    assert code == 2 and not out and len(lines) == 1
    assert re.search(said, lines[0])


def test_a_gpu_of_one_s_own_is_a_file(tmp_path):
    entry = yaml.safe_load(roofline.GPUS.read_text())["a100"]
    path = tmp_path / "gpu.yaml"
    path.write_text(yaml.safe_dump(entry))
    assert roofline.gpu(str(path)) == roofline.gpu("a100")
    path.write_text(yaml.safe_dump({**entry, "pcie_gb_s": 0}))
    with pytest.raises(UserError, match="above 0"):
        roofline.gpu(str(path))
    del entry["hbm_gb_s"]
    path.write_text(yaml.safe_dump(entry))
    with pytest.raises(UserError, match="hbm_gb_s is missing"):
        roofline.gpu(str(path))


def test_a_model_keeps_its_lowest_blocks():
    from benchmark.memory.training import build

    whole, cut = (build(setting("llama", blocks=n)) for n in (None, 2))
    assert isinstance(cut, T.LlamaForCausalLM)
    assert (len(whole.model.layers), len(cut.model.layers)) == (4, 2)
