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
from benchmark.memory import depth, roofline, search, simulate
from benchmark.memory.setting import Setting
from benchmark.models import shapes

GPU = roofline.Gpu(flops=1e12, hbm=1e12, pcie=1e10)


def deep(family: str, blocks: int) -> str:
    folder = tempfile.mkdtemp(prefix=f"deep_{family}_")
    name, config = FAMILIES[family]
    made = config()
    setattr(made, made.attribute_map.get("num_hidden_layers", "num_hidden_layers"), blocks)
    made.architectures = [name]
    made.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("llama", {"precision": "mixed_hi", "checkpointing": True, "loss": "chunked"}),
        ("gpt2", {"options": {"group_size": 2}, "optimizer": "adafactor"}),
        ("llama", {"precision": "bf16_weights", "options": {"weights": "stream"}}),
    ],
    ids=str,
)
def test_two_depths_give_the_peak_of_any(family, more):
    """Nine and ten blocks, of which four and six are simulated."""
    case = setting(family, model=deep(family, 10), seq_len=16, **more)
    found, whole = depth._peak(case, "cuda"), simulate.peak(case)
    assert found.total == pytest.approx(whole.total, rel=0.01)
    assert found.host == pytest.approx(whole.host, rel=0.001)
    assert (found.moment, found.groups) == (whole.moment, whole.groups)


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
    model = roofline.sizes("gpt2-12x512")
    everything = Setting(model="gpt2-12x512", batch_size=8, seq_len=2, options={"group_size": 14})
    peak = made(total=0, host=0, groups=1)
    cost = roofline.cost(everything, peak, 1, GPU)
    tokens = 16
    assert cost.flops == pytest.approx(6 * tokens * model.total, rel=0.02)
    assert cost.seconds == max(cost.flops / GPU.flops, cost.moved / GPU.pcie) and cost.moved == 0


def test_a_group_s_state_comes_and_goes_and_streamed_blocks_come_twice():
    """14 groups of 100 bytes each, 13 of them idle; the way back is over the blocks above the group."""
    sizes = roofline.sizes("gpt2-12x512")
    resident = Setting(model="gpt2-12x512", precision="bf16_weights")
    streamed = resident.but(options={"weights": "stream"})
    assert roofline.cost(resident, made(total=0, host=1300, groups=14), 2, GPU).moved == 200
    peak = made(total=0, host=1300 + 2 * sizes.streamed, groups=14)
    moved = roofline.cost(streamed, peak, 1, GPU).moved
    back = sum(sum(sizes.units[i:]) for i in range(14)) / 14 / sizes.total
    active = sizes.total / 14
    assert moved == pytest.approx(200 + 2 * (sizes.streamed * (1 + back) + active))


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
        gib = 2**30 * (40 + 8 * case.batch_size + 4 * case.group_size)
        gib -= 2**30 * 20 * (case.options.get("weights") == "stream")
        gib //= 2 if case.checkpointing else 1
        host = {"adamw": 12, "adafactor": 6, "sgd": 4}[case.optimizer] * 2**30
        return made(total=gib, host=host * (case.precision == "mixed_hi"), groups=14)

    monkeypatch.setattr(depth, "peak", peak)
    return asked


def answers(budget, host=None):
    given = {"tokens": 256, "seq_len": 64, "on": GPU}
    gib = host and host * 2**30
    return list(search.search("gpt2-12x512", budget * 2**30, gib, **given))


def test_the_fastest_that_fits_comes_first_and_little_is_simulated(needs):
    roomy = answers(1000)
    assert [f"{a.setting.precision} {a.setting.optimizer}" for a in roomy] == [
        f"{precision} {optimizer}" for precision, optimizer in search.RECIPES
    ]
    first = roomy[0].setting
    assert not first.checkpointing and first.loss == "whole" and first.group_size == 1
    tight = answers(23)[0]
    assert tight.setting.checkpointing and tight.peak.total <= 23 * 2**30
    settings = {(c.precision, c.optimizer) for c in needs}
    assert len(needs) < 40 * len(settings)


def test_what_is_found_can_be_trained(monkeypatch):
    """An update inside the backward pass takes all tokens of a step at once: it cannot accumulate."""

    def peak(case):
        inside = case.options["update"] == "in_backward"
        return made(total=case.batch_size if inside else 9, host=0, groups=14)

    monkeypatch.setattr(depth, "peak", peak)
    monkeypatch.setattr(search, "at_least", lambda setting: 0)
    for budget, kind in ((4, search.Found), (2, search.Missing)):
        given = {"tokens": 256, "seq_len": 64, "on": GPU}
        for each in search.search("gpt2-12x512", budget, None, **given):
            assert isinstance(each, kind)
            assert (each.setting.options["update"], each.setting.batch_size) == ("in_backward", 4)


def test_what_is_missing_is_said(needs):
    short = answers(1000, host=8)
    assert isinstance(short[0], search.Missing) and isinstance(short[1], search.Found)
    assert short[1].setting.optimizer == "adafactor"
    assert all(isinstance(each, search.Missing) for each in answers(1))


def test_the_command_line_says_what_to_run_and_what_is_missing(needs, cli):
    code, out, err = cli(
        *("fit", "gpt2-12x512", "--budget", "23GiB", "--host", "8GiB", "--tokens", "256"),
        *("--seq-len", "64", "--format", "json"),
    )
    rows = json.loads(out)
    assert (
        code == 0 and rows[0]["optimizer"] == "adafactor" and rows[0]["device_bytes"] <= 23 * 2**30
    )
    assert "adamw in mixed_hi needs 12.00 GiB of host memory, 8.00 GiB given" in err
    assert rows[0]["command"] in err and "--checkpointing" in rows[0]["command"]
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
