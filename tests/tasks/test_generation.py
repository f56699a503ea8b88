"""Generated texts: against a loop without cache or padding, transformers' beams, and what was learnt."""

import types

import pytest
import torch
from factories import make_spec
from twin_rows import examples, features, task, twin_rows
from twin_tables import tokenizer_of

from benchmark.models import registry
from benchmark.run import recipe
from tasks import base

FAMILIES = ["tiny-gpt2", "tiny-opt", "tiny-llama", "tiny-gpt-neo"]


def load(name, sharpness=1):
    """A model and its tokenizer; with large weights what it finds likely depends on all that it reads."""
    source = registry.source(name)
    tokenizer = registry.load_tokenizer(source)
    torch.manual_seed(0)
    model = registry.load_model(source, "causal_lm", tokenizer.pad_token_id).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data *= sharpness
    return model, tokenizer


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return load(request.param, sharpness=8)


def asked(found):
    return [f["input_ids"][: -f["answer_lengths"]] for f in found]


def rows_of(adapter, tokenizer, n):
    """Examples of the twin, whose passages get longer from row to row."""
    rows = examples(adapter, tokenizer, n=n)
    cut = adapter.config.cut
    if cut is not None:
        words = [text.split() for text in rows[cut]]
        rows[cut] = [" ".join(row[: 4 + 5 * at]) for at, row in enumerate(words)]
    return rows


def batch_of(adapter, tokenizer, n=4):
    found = features(adapter, rows_of(adapter, tokenizer, n), tokenizer)
    assert len({len(ids) for ids in asked(found)}) > 1, "some are padded"
    return found, adapter.collator(tokenizer)(found)


def with_decoding(name, **changes):
    """The task's adapter with other settings of `decoding`."""
    config = base.load(name)
    decoding = config.decoding.model_copy(update=changes)
    return base.adapter(config.model_copy(update={"decoding": decoding}))


@torch.no_grad()
def greedy(model, ids, ends, most):
    """The most likely token, one after the other, of one sequence alone and without a cache."""
    new = []
    while len(new) < most:
        logits = model(torch.tensor([ids + new]), use_cache=False).logits[0, -1]
        new.append(int(logits.argmax()))
        if new[-1] in ends:
            break
    return new


@pytest.mark.sparse
@pytest.mark.parametrize("name", ["generation/squad", "mezo/drop"])
def test_greedy_search_equals_a_loop_over_single_prompts(family, name):
    model, tokenizer = family
    adapter = with_decoding(name, max_new_tokens=16)
    found, batch = batch_of(adapter, tokenizer)
    ends = adapter.ends(tokenizer)
    expected = []
    for ids in asked(found):
        new = greedy(model, ids, ends, most=16)
        text = tokenizer.decode(new, skip_special_tokens=True)
        expected.append(text.split("\n")[0].strip() if adapter.config.stop else text.strip())
    assert adapter.predict(model, batch, tokenizer) == expected
    assert len(set(expected)) == len(expected)


def few_tokens(model):
    """`model` with four tokens alone that are ever likely, so that it repeats itself and never ends."""

    def silence(module, inputs, out):
        rare = torch.full_like(out.logits, -1e4)
        rare[..., 100:104] = 0
        out.logits += rare
        return out

    return model.register_forward_hook(silence)


@torch.no_grad()
def beams_as_in_lora(model, prompt, *, beams, most, n):
    """The best of `beams` texts of `most` tokens: LoRA's search written out for one prompt, without a cache.

    A token that would end an n-gram generated before loses its logit before the softmax.
    """
    live = [(0.0, [])]
    for _ in range(most):
        grown = []
        for score, new in live:
            logits = model(torch.tensor([prompt + new]), use_cache=False).logits[0, -1]
            for start in range(len(new) - n + 1):
                if new[start : start + n - 1] == new[len(new) - n + 1 :]:
                    logits[new[start + n - 1]] = float("-inf")
            best = logits.log_softmax(-1).topk(beams)
            pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
            grown += [(score + more, [*new, token]) for more, token in pairs]
        live = sorted(grown, reverse=True)[:beams]
    return live[0][1]


@pytest.mark.sparse
@pytest.mark.parametrize("beams", [1, 4])
def test_no_ngram_is_generated_twice_in_any_beam_as_in_loras_search(family, beams):
    model, tokenizer = family
    changes = {"max_new_tokens": 16, "beams": beams, "no_repeat_ngram": 3}
    adapter = with_decoding("generation/dart", **changes)
    found, batch = batch_of(adapter, tokenizer, n=2)
    hook = few_tokens(model)
    try:
        texts, plain = (
            [beams_as_in_lora(model, ids, beams=beams, most=16, n=n) for ids in asked(found)]
            for n in (3, 17)
        )
        predictions = adapter.predict(model, batch, tokenizer)
    finally:
        hook.remove()
    assert texts != plain, "some are blocked"
    assert predictions == [tokenizer.decode(t, skip_special_tokens=True).strip() for t in texts]


def follows(model, table):
    """`model` made to find the token that `table` names after each token the likeliest, and its own next."""

    def say(module, inputs, kwargs, out):
        after = torch.tensor(
            [[table.get(i, 0) for i in row] for row in kwargs["input_ids"].tolist()]
        )
        after = after[:, -out.logits.shape[1] :]
        out.logits = out.logits.clamp(-1, 1).scatter(-1, after[..., None], 20.0)
        return out

    return model.register_forward_hook(say, with_kwargs=True)


@pytest.mark.parametrize("beams", [1, 10])
def test_an_ngram_of_the_prompt_may_be_generated_and_not_a_second_time(beams):
    """The name of a restaurant has to be copied from the table, whatever padding stands before that."""
    model, tokenizer = load("tiny-gpt2")
    adapter = with_decoding("generation/e2e_nlg", max_new_tokens=16, beams=beams)
    name = list(range(40, 47))
    colon = 30
    table = dict(zip([colon, *name], [*name, tokenizer.eos_token_id], strict=True))
    found = [
        {"input_ids": [*before, *name, 31, colon, 9], "answer_lengths": 1, "new_tokens": 16}
        for before in ([], [50, 51, 52], [*range(50, 58)])
    ]
    batch = adapter.collator(tokenizer)(found)
    hook = follows(model, table)
    assert adapter.predict(model, batch, tokenizer) == [tokenizer.decode(name).strip()] * 3
    hook.remove()

    hook = follows(model, table | {name[-1]: name[0]})  # the name again and again
    predictions = adapter.predict(model, batch, tokenizer)
    hook.remove()
    again = tokenizer.decode(name + name[:4]).strip()
    assert not any(text.startswith(again) for text in predictions)
    if beams == 1:  # three tokens of a 4-gram may come back, the fourth may not
        copied = tokenizer.decode(name + name[:3]).strip()
        assert all(text.startswith(copied) for text in predictions)


def test_beams_equal_transformers_own_on_single_prompts(family):
    model, tokenizer = family
    adapter = with_decoding("generation/dart", no_repeat_ngram=0, max_new_tokens=16)
    found, batch = batch_of(adapter, tokenizer)
    expected = []
    for ids in asked(found):
        with torch.no_grad():
            (out,) = model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                num_beams=10,
                max_new_tokens=16,
                length_penalty=0.8,
                do_sample=False,
            )
        expected.append(tokenizer.decode(out[len(ids) :], skip_special_tokens=True).strip())
    assert adapter.predict(model, batch, tokenizer) == expected


def test_a_checkpoints_own_generation_settings_change_nothing():
    model, tokenizer = load("tiny-gpt2")
    adapter = task("generation/squad")
    _, batch = batch_of(adapter, tokenizer)
    before = adapter.predict(model, batch, tokenizer)
    model.generation_config.update(
        do_sample=True, temperature=3.0, repetition_penalty=9.0, num_beams=4, use_cache=False
    )
    model.generation_config.update(no_repeat_ngram_size=1)
    assert adapter.predict(model, batch, tokenizer) == before


def test_no_more_is_generated_than_is_left_of_max_length():
    tokenizer, adapter = tokenizer_of("tiny-gpt2"), task("generation/squad")
    told = {}

    def generate(input_ids, **options):
        told.update(options, prompt=input_ids.shape[1])
        return input_ids

    rows = examples(adapter, tokenizer, n=3)
    for max_length, most in ((128, 50), (80, 40)):
        batch = adapter.collator(tokenizer)(features(adapter, rows, tokenizer, max_length))
        adapter.predict(types.SimpleNamespace(generate=generate), batch, tokenizer)
        assert told["max_new_tokens"] == most
        assert told["prompt"] + most <= max_length


@pytest.mark.parametrize(
    ("name", "generated", "prediction"),
    [
        ("mezo/squad", " red\nQuestion: no", "red"),
        ("mezo/squad", "\nred", ""),
        ("generation/squad", " red\nor blue ", "red\nor blue"),
        ("generation/drop", " two; 3 ;4,000", ["two", "3 ;4,000"]),
        ("generation/drop", " 1,200", ["1,200"]),
    ],
)
def test_what_is_generated_is_cut_and_split(name, generated, prediction):
    tokenizer, adapter = tokenizer_of("tiny-gpt2"), task(name)

    def generate(input_ids, **_):
        new = tokenizer(generated)["input_ids"] + [tokenizer.eos_token_id, tokenizer.pad_token_id]
        return torch.cat([input_ids, torch.tensor([new] * len(input_ids))], dim=1)

    _, batch = batch_of(adapter, tokenizer, n=3)
    found = adapter.predict(types.SimpleNamespace(generate=generate), batch, tokenizer)
    assert found == [prediction] * 3


@pytest.mark.parametrize(
    "name", ["generation/squad", pytest.param("mezo/squad", marks=pytest.mark.slow)]
)
def test_what_is_learnt_is_generated_and_ends(name):
    model, tokenizer = load("tiny-llama")
    adapter = task(name)
    found, batch = batch_of(adapter, tokenizer, n=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        adapter.loss(model, batch).backward()
        optimizer.step()
    with torch.inference_mode():
        predictions = adapter.predict(model, batch, tokenizer)
    rows = rows_of(adapter, tokenizer, n=3)
    assert predictions == [answers["text"][0] for answers in rows["answers"]]
    assert adapter.score(predictions, adapter.references(rows))["exact_match"] == 1
    ends = adapter.ends(tokenizer)
    for ids in asked(found):
        assert greedy(model, ids, ends, most=50)[-1] in ends, "it ends by itself"


def test_rows_of_one_representation_are_one_example_with_all_references():
    adapter = task("generation/e2e_nlg")
    rows = {
        "meaning_representation": ["name[B]", "name[A]", "name[B]", "name[C]"],
        "human_reference": ["b 1", "a", "b 2", "c"],
    }
    arranged = adapter.arrange(rows, False, None, 128)
    assert arranged["meaning_representation"] == ["name[B]", "name[A]", "name[C]"]
    assert arranged["human_reference"] == ["b 1", "a", "c"]
    assert adapter.references(arranged) == [["b 1", "b 2"], ["a"], ["c"]]
    assert adapter.arrange(rows, True, None, 128) is None
    # rows held out of train are not arranged: each is an example
    assert adapter.references(rows) == [["b 1"], ["a"], ["b 2"], ["c"]]


def test_the_references_of_a_row_held_out_of_train_are_its_answer():
    adapter = task("generation/dart")
    rows = twin_rows(adapter.config, "train", n=2)
    assert adapter.references(rows) == [[text] for text in rows["target"]]
    rows = twin_rows(adapter.config, "eval", n=2)
    assert adapter.references(rows) == rows["references"]


@pytest.mark.parametrize(
    ("prediction", "exact"),
    [(["two", "3"], 1), (["3", "two"], 1), (["two"], 1), (["3"], 1), (["4"], 0), (["two", "4"], 0)],
)
def test_a_list_of_spans_is_one_answer_or_several(prediction, exact):
    adapter = task("generation/drop")
    rows = {
        "passage": ["Two, 3."],
        "question": ["Which?"],
        "answers_spans": [{"spans": ["two", "3"]}],
    }
    references = adapter.references(rows)
    assert references == [[["two", "3"], ["two"], ["3"]]]
    assert adapter.score([prediction], references)["exact_match"] == exact


def test_e2e_on_the_test_split_is_the_same_task():
    one, other = (base.load(f"generation/{n}").model_dump() for n in ("e2e_nlg", "e2e_nlg_test"))
    for config in (one, other):
        config["dataset"] |= {"splits": None, "sizes": None}
        del config["name"], config["card"]["checked"]
    assert one == other


@pytest.mark.parametrize("name", ["mezo/drop", "lm/wikitext2"])
def test_a_cell_runs_from_spec_to_record(tmp_path, name):
    spec = make_spec(
        task=name,
        model="tiny-gpt2",
        strategy="hift",
        data="twin",
        lr=1e-3,
        max_steps=2,
        epochs=None,
        batch_size=2,
        train_examples=4,
        eval_examples=5,
        max_length=128,
    )
    done = recipe.run(spec, tmp_path)
    assert done.status == "success" and done.scores.n == 5
    assert done.scores.metric in ("f1", "perplexity")
