"""What cannot be simulated is refused in one line."""

import json

import pytest
from memory_cases import setting

from benchmark.errors import UserError
from benchmark.memory import simulate
from benchmark.memory.setting import Setting


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"strategy": "hitf"}, "hift"),
        ({"strategy": "none"}, "trains nothing"),
        ({"optimizer": "adamww"}, "adamw"),
        ({"precision": "fp8"}, "mixed_hi"),
        ({"attention": "flash"}, "sdpa"),
        ({"batch_size": 0}, "batch_size"),
        ({"seq_len": 65}, "64 positions"),
        ({"loss": "chunks"}, "chunked"),
        ({"loss": "chunked", "head": "sequence_classification"}, "for causal LMs, .* use whole"),
        ({"head": "masked_lm"}, "no head masked_lm"),
        ({"options": {"group_sise": 1}}, "group_sise"),
        ({"options": {"group_size": 7}}, "6 units"),
        ({"strategy": "lora", "precision": "mixed_hi"}, "no precision mixed_hi"),
        ({"strategy": "lora", "precision": "mixed"}, "no precision mixed, only fp32"),
        ({"model": "lama-7b"}, "llama-7b"),
    ],
    ids=str,
)
def test_refused_in_one_line(more, said):
    with pytest.raises(UserError, match=said) as refused:
        simulate.peak(setting("llama", **more))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "vit", "architectures": ["ViTModel"]}, "no head of .*causal_lm"),
        ({"model_type": "vit", "architectures": ["ViTForImageClassification"]}, "no head of"),
        ({"model_type": "bert", "architectures": ["BertForMultipleChoice"]}, "no head of"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "not a multiple"),
    ],
)
def test_a_config_that_cannot_be_trained_is_refused_in_one_line(config, said, tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    if said == "not a multiple":
        sizes["hidden_size"] = 30
    (tmp_path / "config.json").write_text(json.dumps(config | sizes))
    with pytest.raises(UserError, match=said) as refused:
        simulate.peak(Setting(model=str(tmp_path)))
    assert "\n" not in str(refused.value)


def test_what_fake_tensors_cannot_do_is_one_line(monkeypatch):
    """Such as the grouped matrix product of a mixture of experts in fp32."""

    def forward(self):
        raise RuntimeError("Expected inputs of BF16 type\nand more")

    monkeypatch.setattr("benchmark.memory.training.Training.forward", forward)
    with pytest.raises(UserError, match=r"beyond simulation: Expected inputs of BF16 type$"):
        simulate.peak(setting("llama", seq_len=7))


def test_attention_that_a_family_has_not_is_named():
    with pytest.raises(UserError, match="no sdpa attention"):
        simulate.peak(setting("gpt_neo", attention="sdpa"))
