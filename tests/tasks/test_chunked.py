"""The loss in chunks against the ordinary loss, and against torch's `linear_cross_entropy`."""

import copy

import pytest
import torch
import transformers as T
from torch.nn import LinearCrossEntropyOptions, functional
from torch.utils._python_dispatch import TorchDispatchMode

from tasks import batches, chunked
from tasks.base import TaskError

SIZES = {"vocab_size": 401, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES = {
    "gpt2": lambda **more: T.GPT2LMHeadModel(
        T.GPT2Config(vocab_size=401, n_embd=32, n_layer=2, n_head=4, n_positions=64, **more)
    ),
    "opt": lambda **more: T.OPTForCausalLM(
        T.OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=66, **more)
    ),
    "llama": lambda **more: T.LlamaForCausalLM(
        T.LlamaConfig(**SIZES, intermediate_size=64, max_position_embeddings=64, **more)
    ),
}
LENGTHS = torch.tensor([9, 4, 1])


def model_of(family: str, **more):
    torch.manual_seed(0)
    return FAMILIES[family](**more).eval()


def inputs():
    """Three rows of 20 tokens, the last padded on the left."""
    torch.manual_seed(1)
    mask = torch.ones(3, 20, dtype=torch.long)
    mask[2, :7] = 0
    return torch.randint(3, 401, (3, 20)), mask, LENGTHS


def loss_and_gradients(model, *, precision=torch.float32, **how):
    model = copy.deepcopy(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision != torch.float32):
        log_probs = batches.answer_log_probs(model, *inputs(), **how)
    (-log_probs.sum() / LENGTHS.sum()).backward()
    return log_probs.detach(), {n: p.grad for n, p in model.named_parameters()}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_the_whole_logits(family, tied, precision):
    model = model_of(family, tie_word_embeddings=tied)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    whole, gradients = loss_and_gradients(model, precision=precision)
    mine, of_mine = loss_and_gradients(model, precision=precision, chunked=True)
    # bf16 has 8 bits; the gradient of the output layer is a sum over chunks
    close = {"rtol": 1e-5, "atol": 1e-6} if precision == torch.float32 else {"rtol": 0.02}
    torch.testing.assert_close(mine, whole, **{"atol": 2e-3, **close})
    assert (mine[1, :5] == 0).all(), "what is no answer has no loss"
    for name, gradient in gradients.items():
        # the bias of keys has no gradient but rounding
        error = (of_mine[name] - gradient).norm() / gradient.norm().clamp(min=1e-3)
        assert error < close["rtol"], name


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_equals_torch_s_own_function(reduction, has_bias):
    torch.manual_seed(0)
    hidden, layer = torch.randn(30, 16), torch.nn.Linear(16, 200, bias=has_bias)
    targets = torch.randint(0, 200, (30,))
    targets[3:7] = chunked.IGNORED
    results = []
    for own in (True, False):
        given = hidden.clone().requires_grad_()
        layer.zero_grad()
        if own:
            losses = chunked._ChunkedCrossEntropy.apply(
                given, layer.weight, layer.bias, targets, None
            )
            loss = losses.sum() / (26 if reduction == "mean" else 1)
        else:
            loss = functional.linear_cross_entropy(
                given,
                layer.weight,
                targets,
                linear_bias=layer.bias,
                reduction=reduction,
                options=LinearCrossEntropyOptions(),
            )
        loss.backward()
        results.append([loss.detach(), given.grad, *(p.grad.clone() for p in layer.parameters())])
    torch.testing.assert_close(*results)


class Largest(TorchDispatchMode):
    """The most elements that any tensor had."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else (result,):
            if isinstance(made, torch.Tensor):
                self.elements = max(self.elements, made.numel())
        return result


def test_the_whole_logits_never_exist():
    model, ids = model_of("llama"), torch.ones(8, 20, dtype=torch.long)
    given, most = (ids, ids, torch.full((8,), 19)), {}
    for how in (False, True):
        with Largest() as seen:
            batches.answer_log_probs(model, *given, chunked=how).sum().backward()
        most[how] = seen.elements
    assert most[False] >= 8 * 19 * 401
    assert most[True] == 32 * 401, "the largest weight"


def test_frozen_weights_get_no_gradient():
    model = model_of("llama", tie_word_embeddings=False)
    model.lm_head.requires_grad_(False)
    _, gradients = loss_and_gradients(model, chunked=True)
    assert gradients["lm_head.weight"] is None
    assert gradients["model.embed_tokens.weight"].norm() > 0


def _capped():
    sizes = {**SIZES, "intermediate_size": 64, "max_position_embeddings": 64}
    return T.CohereForCausalLM(T.CohereConfig(**sizes, logit_scale=0.25))


def _quantised():
    model = model_of("gpt2")
    model.set_output_embeddings(type("Packed", (torch.nn.Linear,), {})(32, 401))
    return model


@pytest.mark.parametrize(
    ("make", "said"),
    [(_capped, "does to its logits"), (_quantised, "is Packed")],
    ids=["capped", "quantised"],
)
def test_logits_of_another_kind_are_refused_in_one_line(make, said):
    with pytest.raises(TaskError, match=said) as refused:
        batches.answer_log_probs(make(), *inputs(), chunked=True)
    assert "\n" not in str(refused.value) and "use loss: whole" in str(refused.value)
