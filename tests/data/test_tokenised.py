"""Encoded rows are kept: a second start tokenises nothing, and nothing stale or broken is served."""

import multiprocessing

import pytest
from factories import make_spec

import tasks.base
from benchmark.data import examples, sources, tokenised
from benchmark.models import registry
from benchmark.run.settings import data_settings
from tasks.candidates import Candidates
from tasks.classification import Classification

SPEC = make_spec(model="tiny-gpt2", data="twin", train_examples=20, eval_examples=10, max_length=48)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own; the twins are the session's."""
    monkeypatch.setattr(tokenised, "cache_folder", lambda name: tmp_path / name)
    return tmp_path / "encoded"


def load(spec, tokenizer=None, adapter=None):
    adapter = adapter or tasks.base.adapter(tasks.base.load(spec.task))
    return examples.load(
        data_settings(spec),
        adapter,
        tokenizer or registry.load_tokenizer(registry.source(spec.model)),
    )


@pytest.fixture
def calls(monkeypatch):
    """How often an adapter encoded since."""
    calls = []
    for kind in (Classification, Candidates):

        def counted(self, *arguments, real=kind.encode):
            calls.append(self)
            return real(self, *arguments)

        monkeypatch.setattr(kind, "encode", counted)
    return calls


def content(found):
    return [part.encoded.to_dict() for part in (found.train, found.evaluation)]


@pytest.mark.parametrize("task", ["glue/sst2", "mezo/sst2", "mezo/record"])
def test_a_second_start_does_no_tokenising_and_has_the_same_rows(calls, task):
    spec = SPEC.model_copy(update={"task": task, "max_length": 200})
    first = load(spec)
    assert len(calls) == 2
    second = load(spec)
    assert len(calls) == 2
    assert content(first) == content(second)
    assert first.train.encoded.features == second.train.encoded.features
    assert (first.fingerprint, first.truncated) == (second.fingerprint, second.truncated)


@pytest.mark.parametrize(
    "update",
    [{"max_length": 20}, {"seed": 1}, {"model": "tiny-llama"}, {"task": "mezo/sst2"}],
    ids=lambda update: next(iter(update)),
)
def test_anything_else_is_encoded_anew(calls, update):
    load(SPEC)
    load(SPEC.model_copy(update=update))
    assert len(calls) > 2
    alone = content(load(SPEC.model_copy(update=update)))
    assert alone != content(load(SPEC))


def test_another_template_or_code_or_special_token_is_encoded_anew(calls, monkeypatch):
    load(SPEC)
    adapter = tasks.base.adapter(tasks.base.load(SPEC.task))
    adapter.config = adapter.config.model_copy(update={"inputs": ("so: {sentence}",)})
    changed = load(SPEC, adapter=adapter)
    assert len(calls) == 4 and content(changed) != content(load(SPEC))
    tokenizer = registry.load_tokenizer(registry.source("tiny-gpt2"))
    tokenizer.add_tokens(["the"])
    load(SPEC, tokenizer)
    assert len(calls) == 6
    monkeypatch.setattr(tokenised, "_code", lambda: "other")
    load(SPEC)
    assert len(calls) == 8


def test_demonstrations_are_part_of_what_is_kept(calls):
    spec = make_spec(
        **{"task": "mezo/sst2", "model": "tiny-gpt2", "strategy": "none", "data": "twin"},
        **{"eval_examples": 10, "lr": None, "epochs": None},
    )
    shown = spec.model_copy(update={"demonstrations": 2})
    lengths = [sum(map(len, load(s).evaluation.encoded["input_ids"][0])) for s in (spec, shown)]
    assert lengths[0] < lengths[1] and len(calls) == 2
    load(shown)
    assert len(calls) == 2


def test_what_a_call_of_the_tokenizer_leaves_behind_does_not_matter(calls):
    tokenizer = registry.load_tokenizer(registry.source("tiny-gpt2"))
    load(SPEC, tokenizer)
    tokenizer(["a", "b c"], padding=True, truncation=True, max_length=7)
    load(SPEC, tokenizer)
    assert len(calls) == 2


@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b"", lambda b: flipped(b)])
def test_a_damaged_file_is_made_again(cache, calls, damage):
    first = content(load(SPEC))
    for path in cache.iterdir():
        path.write_bytes(damage(path.read_bytes()))
    assert content(load(SPEC)) == first and len(calls) == 4
    assert content(load(SPEC)) == first and len(calls) == 4


def flipped(content):
    """Every bit of forty bytes of the first column's data turned over."""
    return content[:60] + bytes(255 - b for b in content[60:100]) + content[100:]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch, calls):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tokenised, "cache_folder", lambda name: tmp_path / "file" / name)
    assert content(load(SPEC)) == content(load(SPEC)) and len(calls) == 4


def _several(folder):
    tokenised.cache_folder = lambda name: folder / name
    return content(load(SPEC))


def test_several_processes_may_start_the_same_cell(tmp_path):
    with multiprocessing.get_context("fork").Pool(3) as pool:
        found = pool.map(_several, [tmp_path / "shared"] * 3)
    assert found[0] == found[1] == found[2]
    assert len(list((tmp_path / "shared" / "encoded").iterdir())) == 2, "no temporary files"


def test_counts_of_rows_read_and_used():
    found = load(SPEC)
    tables = sources.read_all(tasks.base.load(SPEC.task), "twin")
    sizes = {
        "train": len(tables["train"][1]["train"]),
        "eval": len(tables["eval"][1]["validation"]),
    }
    assert found.read == sizes and found.shown == 0.0
    assert len(found.train.ids) == 20 < sizes["train"]
