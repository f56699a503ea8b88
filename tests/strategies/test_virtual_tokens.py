"""Prompt tuning, p-tuning and prefix tuning: peft's own wrapper for inputs without padding, and a padded row
equal to the row alone, for every head of every family."""

import copy
import functools
import warnings

import peft
import pytest
import torch
from factories import make_spec, make_strategy

from benchmark.errors import Unsupported, UserError
from benchmark.models import registry
from benchmark.run import compatibility
from benchmark.strategies.shared.virtual_tokens import base_of
from benchmark.twin.models import TWINS

TASKS = {
    "sequence_classification": "SEQ_CLS",
    "token_classification": "TOKEN_CLS",
    "question_answering": "QUESTION_ANS",
    "causal_lm": "CAUSAL_LM",
    "masked_lm": "FEATURE_EXTRACTION",
}
TOKENS, LENGTH, PADDING = 5, 8, 3
FAMILIES = ("tiny-bert", "tiny-roberta", "tiny-gpt2", "tiny-gpt-neo", "tiny-opt", "tiny-llama")
PLACES = [(family, head) for family in FAMILIES for head in TWINS[family].heads]
METHODS = {
    "prompt": lambda task: peft.PromptTuningConfig(
        num_virtual_tokens=TOKENS, prompt_tuning_init="SAMPLE_VOCAB", task_type=task
    ),
    "ptuning": lambda task: peft.PromptEncoderConfig(
        num_virtual_tokens=TOKENS, encoder_hidden_size=64, task_type=task
    ),
    "prefix": lambda task: peft.PrefixTuningConfig(num_virtual_tokens=TOKENS, task_type=task),
}


@functools.cache
def loaded(family, head):
    """A tiny model and rows of tokens. Tests prepare copies of the model."""
    torch.manual_seed(0)
    model = registry.load_model(registry.source(family), head, 1).eval()
    ids = torch.randint(10, 900, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    return model, ids


def prepared(method, model, **options):
    torch.manual_seed(5)
    strategy = make_strategy(
        make_spec(strategy=method, options={"tokens": TOKENS, **options}, lr=1e-2)
    )
    return strategy, strategy.prepare(copy.deepcopy(model)).eval()


@torch.no_grad()
def output(model, ids, mask=None, **more):
    mask = torch.ones_like(ids) if mask is None else mask
    found = model(input_ids=ids, attention_mask=mask, **more)
    if "start_logits" in found:
        return torch.stack([found.start_logits, found.end_logits], dim=-1)
    return found.logits


def of_peft(method, model, head):
    torch.manual_seed(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(copy.deepcopy(model), METHODS[method](TASKS[head])).eval()


def differs(family, head, method):
    """Of an encoder's virtual tokens, peft classifies by the first; this by the first real token."""
    encoder = "masked_lm" in TWINS[family].heads
    return method != "prefix" and encoder and head == "sequence_classification"


@pytest.mark.sparse
@pytest.mark.parametrize(
    ("family", "head", "method"),
    [(*place, method) for place in PLACES for method in METHODS if not differs(*place, method)],
)
def test_without_padding_outputs_are_peft_s(family, head, method):
    model, ids = loaded(family, head)
    _, ours = prepared(method, model)
    theirs = output(of_peft(method, model, head), ids)
    theirs = theirs if head == "sequence_classification" else theirs[:, -LENGTH:]
    assert torch.equal(output(ours, ids), theirs)
    assert not torch.equal(output(model, ids), theirs)


@pytest.mark.sparse
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("family", "head"), PLACES)
def test_a_padded_row_is_as_the_row_alone(family, head, method):
    """On the side on which the tasks pad for the head; peft's own wrapper fails here."""
    model, ids = loaded(family, head)
    _, ours = prepared(method, model)
    left = head == "causal_lm"
    out, real = (slice(0, PADDING), slice(PADDING, None))
    if not left:
        out, real = (slice(LENGTH - PADDING, None), slice(0, LENGTH - PADDING))
    mask, padded = torch.ones_like(ids), ids.clone()
    mask[1, out], padded[1, out] = 0, model.config.pad_token_id
    places = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)} if left else {}
    found = output(ours, padded, mask, **places)[1]
    alone = output(ours, ids[1:2, real])[0]
    found = found if head == "sequence_classification" else found[real]
    torch.testing.assert_close(found, alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", [f for f in FAMILIES if "causal_lm" in TWINS[f].heads])
def test_a_padded_prompt_generates_what_one_token_after_another_does(family, method):
    model, ids = loaded(family, "causal_lm")
    _, ours = prepared(method, model)
    mask, padded = torch.ones_like(ids), ids.clone()
    mask[1, :PADDING], padded[1, :PADDING] = 0, 1
    settings = {"do_sample": False, "pad_token_id": 1, "eos_token_id": None, "max_new_tokens": 6}
    generated = ours.generate(input_ids=padded, attention_mask=mask, **settings)
    row = ids[1:2, PADDING:]
    for _ in range(6):
        row = torch.cat([row, output(ours, row)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(generated[1, PADDING:], row[0])
    beams = ours.generate(input_ids=padded, attention_mask=mask, num_beams=2, **settings)
    assert beams.shape == generated.shape


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("family", "head", "new"),
    [
        ("tiny-roberta", "masked_lm", ""),
        ("tiny-opt", "causal_lm", ""),
        ("tiny-bert", "sequence_classification", "classifier."),
        ("tiny-gpt2", "question_answering", "qa_outputs."),
    ],
)
def test_vectors_and_a_new_head_train_and_all_get_gradients(family, head, new, method):
    model, ids = loaded(family, head)
    _, ours = prepared(method, model)
    trains = {n: p for n, p in ours.named_parameters() if p.requires_grad}
    found = ours(input_ids=ids, attention_mask=torch.ones_like(ids))
    found[0].sum().backward()
    assert all(p.grad is not None for p in trains.values())
    others = {n for n in trains if ".prompt_encoder." not in n}
    assert len(others) < len(trains) and bool(others) == bool(new)
    assert all(n.startswith(new) for n in others)


@pytest.mark.parametrize(
    ("method", "options", "inner"),
    [
        ("ptuning", {"network": "lstm", "width": 12}, "lstm_head"),
        ("prefix", {"projection": 12}, "transform"),
        ("prompt", {"start": "random"}, "embedding"),
    ],
)
def test_the_paper_s_networks_are_options(method, options, inner):
    model, ids = loaded("tiny-gpt2", "causal_lm")
    _, ours = prepared(method, model, **options)
    names = [n for n, p in ours.named_parameters() if p.requires_grad]
    assert any(f"prompt_encoder.{inner}" in n for n in names)
    assert output(ours, ids).isfinite().all()


def test_prompts_start_from_words():
    model, _ = loaded("tiny-gpt2", "causal_lm")
    _, ours = prepared("prompt", model)
    words = model.get_input_embeddings().weight
    for vector in base_of(ours).prompt_encoder.embedding.weight:
        assert (words == vector).all(dim=1).any()


def test_the_virtual_tokens_count_among_the_positions():
    """128 positions of the twin hold 123 tokens and 5 virtual ones."""
    import tasks.base

    adapter = tasks.base.adapter(tasks.base.load("glue/sst2"))
    source = registry.source("tiny-bert")
    tokenizer = registry.load_tokenizer(source)
    for length in (123, 124):
        spec = make_spec(
            model="tiny-bert", strategy="prompt", options={"tokens": TOKENS}, max_length=length
        )
        arguments = (spec, make_strategy(spec), adapter, source, tokenizer)
        if length == 123:
            compatibility.check(*arguments)
            continue
        with pytest.raises(UserError, match="max_length: 124 and 5 of the strategy are more than"):
            compatibility.check(*arguments)


def test_a_prefix_under_checkpointing_is_refused_before_the_model_loads():
    with pytest.raises(Unsupported, match=r"leaves the cache out.*use prompt"):
        make_strategy(make_spec(strategy="prefix", checkpointing=True))


def test_a_model_with_an_encoder_and_a_decoder_is_refused():
    from transformers import BartConfig, BartForSequenceClassification

    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 50}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    model = BartForSequenceClassification(BartConfig(**sizes, **heads, encoder_ffn_dim=8))
    with pytest.raises(UserError, match=r"strategy prompt: .*two stacks.*use lora"):
        prepared("prompt", model)


def with_update(model, ids):
    """DePT written out for a row without padding: prompt, then embeddings with a row of A B each."""
    encoder = base_of(model).prompt_encoder
    update = encoder.low_rank_a @ encoder.low_rank_b
    embeddings = model.get_input_embeddings()(ids)
    length = min(ids.shape[1], len(update))
    embeddings = torch.cat([embeddings[:, :length] + update[:length], embeddings[:, length:]], 1)
    return torch.cat([encoder.embedding.weight[None], embeddings], dim=1)


@pytest.mark.parametrize("length", [256, 4])
@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-opt", "tiny-llama"])
def test_dept_is_prompt_and_updated_embeddings_written_out(family, length):
    model, ids = loaded(family, "causal_lm")
    _, ours = prepared("dept", model, length=length)
    prompted = prepared("prompt", model)[1]
    assert torch.equal(output(ours, ids), output(prompted, ids)), "the update starts from zero"
    with torch.no_grad():
        low = base_of(ours).prompt_encoder.low_rank_b
        low.copy_(torch.randn(low.shape, generator=torch.Generator().manual_seed(2)))
        row = ids[1:2, PADDING:]
        embeddings = with_update(ours, row)
        expected = model(inputs_embeds=embeddings).logits[:, TOKENS:]
    mask, padded = torch.ones_like(ids), ids.clone()
    mask[1, :PADDING], padded[1, :PADDING] = 0, 1
    places = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    found = output(ours, padded, mask, **places)[1, PADDING:]
    torch.testing.assert_close(found, expected[0], atol=1e-5, rtol=1e-4)
    settings = {"do_sample": False, "pad_token_id": 1, "eos_token_id": None, "max_new_tokens": 6}
    generated = ours.generate(input_ids=padded, attention_mask=mask, **settings)
    for _ in range(6):
        row = torch.cat([row, output(ours, row)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(generated[1, PADDING:], row[0])


def test_dept_has_a_learning_rate_for_the_update():
    model, _ = loaded("tiny-gpt2", "causal_lm")
    strategy, ours = prepared("dept", model, low_rank_rate=0.25)
    optimizer, _ = strategy.optimizer(ours, 10)
    named = {id(p): n.rpartition(".")[2] for n, p in ours.named_parameters()}
    rates = {named[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rates == {"weight": 1e-2, "low_rank_a": 2.5e-3, "low_rank_b": 2.5e-3}
