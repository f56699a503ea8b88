"""Twin models: checkpoints that the Auto classes load, the same on every build, with every head."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoTokenizer

from benchmark.cache import cache_folder
from benchmark.errors import UserError
from benchmark.models import registry
from benchmark.twin import models

# Vocabularies hold on every machine; a changed one means raising models.VERSION. That of a new twin is pinned
# once records name it.
VOCABULARIES = {
    "tiny-bert": "d59d1bbf0825c8e7",
    "tiny-roberta": "e6812fd45d25a734",
    "tiny-gpt2": "1863baaa2a958614",
    "tiny-gpt2-512": "1863baaa2a958614",
    "tiny-gpt-neo": "1863baaa2a958614",
    "tiny-opt": "5b1e222115bcd009",
    "tiny-llama": "0f3b501cc9c8f11b",
}
TEXTS = ["the acting is not dull", "the plot is bad . Zoë paid $35 for it"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """These models are too small for two, which only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root():
    """Where the tests of this session build them, each once."""
    return cache_folder(f"twin-models-{models.VERSION}")


@pytest.fixture(params=models.TWINS)
def folder(request, root):
    return models.build(request.param, root)


def test_what_is_pinned_is_a_twin():
    assert set(VOCABULARIES) <= set(models.TWINS)


def test_files_are_the_hub_s(folder):
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_tokenizer(folder):
    tokenizer, config = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    assert type(tokenizer).__name__ == models.TWINS[folder.name].tokenizer
    assert len(tokenizer) == config.vocab_size == models.VOCAB_SIZE
    assert tokenizer.pad_token_id is not None
    for role in ("pad", "bos", "eos"):
        assert getattr(config, f"{role}_token_id") == getattr(tokenizer, f"{role}_token_id")
    assert tokenizer.pad_token_id not in (tokenizer.bos_token_id, tokenizer.eos_token_id)
    ids = tokenizer(TEXTS[1])["input_ids"]
    back = tokenizer.decode(ids, skip_special_tokens=True)
    lower = models.TWINS[folder.name].training == "wordpiece"  # as BERT's uncased vocabulary
    squeezed = "zoepaid$35forit" if lower else "Zoëpaid$35forit"
    assert back.replace(" ", "").endswith(squeezed)
    # words of the corpus are whole tokens, so texts are about as long as they have words
    assert len(tokenizer("the acting is wonderful", add_special_tokens=False)["input_ids"]) <= 8


def test_vocabulary_is_the_version_s(folder):
    vocabulary = sorted(AutoTokenizer.from_pretrained(folder).get_vocab().items())
    digest = hashlib.sha256(repr(vocabulary).encode()).hexdigest()[:16]
    assert digest == VOCABULARIES.get(folder.name, digest), (
        "the vocabulary changed: raise models.VERSION"
    )


def test_each_head_trains_at_full_length_and_ignores_padding(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
    longest = tokenizer(["dull " * 600], truncation=True, return_tensors="pt")
    assert longest["input_ids"].shape == (1, models.TWINS[folder.name].max_length)
    for head in models.TWINS[folder.name].heads:
        torch.manual_seed(0)
        auto = getattr(transformers, registry.HEADS[head])
        model = auto.from_pretrained(folder).eval()
        with torch.no_grad():
            alone = model(**tokenizer(TEXTS[:1], return_tensors="pt"))[0]
            padded = model(**tokenizer(TEXTS, padding=True, return_tensors="pt"))[0]
        if head != "sequence_classification":
            padded = padded[:, : alone.shape[1]]
        torch.testing.assert_close(padded[:1], alone, atol=1e-5, rtol=1e-5)
        loss = model(**longest)[0].float().square().mean()
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_two_builds_are_equal_and_leave_the_random_state_alone(folder, tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    again = models.build(folder.name, tmp_path)
    assert torch.equal(torch.rand(3), expected)
    first, second = (AutoModel.from_pretrained(path).state_dict() for path in (folder, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_another_process_builds_the_same_tokenizers(root, tmp_path):
    """The trainers count in hash maps whose order differs between processes."""
    code = (
        "import sys, pathlib; from benchmark.twin import models;"
        "[models.build(name, pathlib.Path(sys.argv[1])) for name in models.TWINS]"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    for name in models.TWINS:
        ours, theirs = (models.build(name, place) / "tokenizer.json" for place in (root, tmp_path))
        assert ours.read_bytes() == theirs.read_bytes()


def test_an_unknown_twin_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match='did you mean "tiny-bert"'):
        models.build("tiny-brt", tmp_path)


def test_importing_the_package_loads_no_torch():
    code = (
        "import sys, benchmark.twin.data, benchmark.twin.models;"
        "print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert out.stdout.strip() == "set()"
