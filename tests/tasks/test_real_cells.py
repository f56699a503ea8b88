"""GSM8K and E2E on real data with GPT-2's tokenizer and a model of two layers: from spec to record."""

import json
import math
import shutil

import pytest
import torch
from datasets import load_dataset
from factories import make_spec
from transformers import AutoModelForCausalLM, GPT2Config
from twin_rows import SHARED, task

from benchmark.errors import UserError
from benchmark.run import recipe


@pytest.fixture(scope="module")
def model(gpt2, tmp_path_factory):
    """A folder with GPT-2's tokenizer files and a GPT-2 of 2 layers that are 16 wide, untrained."""
    folder = tmp_path_factory.mktemp("gpt2-2x16")
    shutil.copytree(SHARED / "models" / "gpt2-tokenizer", folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=len(gpt2))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def _real_data():
    if not (SHARED / "data").is_dir():
        pytest.skip("the real data is not beside the checkout")


@pytest.fixture
def run(model, tmp_path, monkeypatch):
    def run(name, **fields):
        monkeypatch.setenv("HIFT_DATA_ROOT", str(SHARED / "data"))
        usual = {
            **{"task": name, "model": model, "strategy": "hift", "lr": 1e-3, "epochs": None},
            **{"max_steps": 4, "batch_size": 2, "train_examples": 16, "eval_examples": 8},
        }
        done = recipe.run(make_spec(**usual | fields), tmp_path)
        assert done.status == "success" and done.train.steps == 4
        assert (done.scores.n, done.inputs.examples_truncated) == (8, 0)
        lines = (tmp_path / done.predictions).read_text().splitlines()
        found = [json.loads(line) for line in lines]
        columns = {side: [row[side] for row in found] for side in ("prediction", "reference")}
        return done, columns

    return run


def raw(name):
    dataset = task(name).config.dataset
    return load_dataset(str(SHARED / "data" / dataset.id), dataset.config)


@pytest.mark.slow
def test_gsm8k(run):
    done, columns = run("generation/gsm8k", max_length=640)
    assert done.scores.metric_version.startswith("gsm8k@") and done.scores.split == "test"
    assert set(columns["reference"]) < set(raw("generation/gsm8k")["test"]["answer"])
    assert all("####" in text for text in columns["reference"])
    scores = task("generation/gsm8k").score(columns["prediction"], columns["reference"])
    assert scores == done.scores.all, "what is stored is enough to score again"


@pytest.mark.slow
def test_e2e(run):
    done, columns = run("generation/e2e_nlg", max_length=160)
    assert done.scores.metric == "BLEU" and {"BLEU", "NIST"} <= set(done.scores.all)
    groups = {}
    for row in raw("generation/e2e_nlg")["validation"]:
        groups.setdefault(row["meaning_representation"], []).append(row["human_reference"])
    assert len(groups) == 82
    assert all(texts in groups.values() for texts in columns["reference"])


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("generation/gsm8k", "test"),
        pytest.param("generation/e2e_nlg", "validation", marks=pytest.mark.slow),
    ],
)
def test_real_rows_are_rendered_and_a_step_makes_them_likelier(model, gpt2, name, split):
    adapter = task(name)
    rows = raw(name)[split][:4]
    encoded = adapter.encode(rows, gpt2, 640)
    answers = rows[adapter.config.answer.strip(" {}").partition(":")[0]]
    for ids, n, answer in zip(
        encoded["input_ids"], encoded["answer_lengths"], answers, strict=True
    ):
        assert gpt2.decode(ids[-n:]) == f" {answer.strip()}<|endoftext|>"
    found = [
        dict(zip(encoded, values, strict=True)) for values in zip(*encoded.values(), strict=True)
    ]
    batch = adapter.collator(gpt2)(found)
    network = AutoModelForCausalLM.from_pretrained(model)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(2):
        loss = adapter.loss(network, batch)
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[0] == pytest.approx(math.log(len(gpt2)), abs=0.2)  # it knows nothing yet
    assert losses[1] < losses[0]


def test_the_official_solutions_of_gsm8k_are_right():
    adapter = task("generation/gsm8k")
    answers = adapter.references(raw("generation/gsm8k")["test"][:])
    assert adapter.score(answers, answers) == {"accuracy": 1.0, "accuracy_flexible": 1.0}


@pytest.mark.slow
def test_too_long_rows_of_e2e_are_refused_in_one_line_or_left_out(run, gpt2):
    """Against a count over the raw columns: prompt, and what is generated or learnt after it."""
    rows = raw("generation/e2e_nlg")["train"][:]
    columns = rows["meaning_representation"], rows["human_reference"]
    prompts = [
        len(ids) for ids in gpt2([f"{text.strip()} ###" for text in columns[0]])["input_ids"]
    ]
    answers = [
        len(ids) + 1 for ids in gpt2([f" {text.strip()}" for text in columns[1]])["input_ids"]
    ]
    needed = [p + max(a, min(64, 90 // 2)) for p, a in zip(prompts, answers, strict=True)]
    long = sum(tokens > 90 for tokens in needed)
    assert 0 < long < len(needed)
    with pytest.raises(UserError) as raised:
        run("generation/e2e_nlg", max_length=90, train_examples=None, too_long="error")
    assert f" {long:,} of {len(needed):,} rows of train " in str(raised.value)
    done, _ = run("generation/e2e_nlg", max_length=90, train_examples=None)
    assert done.inputs.long_train_dropped == long
    assert done.inputs.examples_train == len(needed) - long
