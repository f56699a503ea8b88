"""Kept models: `from_pretrained` loads what was scored; model cards, full disks, and what is refused."""

import dataclasses
import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from factories import make_record, make_spec

import tasks.base
from benchmark.errors import Unsupported, UserError
from benchmark.matrices import matrix, planning
from benchmark.models import registry
from benchmark.records import predictions, record
from benchmark.run import kept, recipe
from benchmark.strategies import build
from benchmark.strategies.settings import TrainingSettings

FIELDS = {"task": "glue/sst2", "data": "twin", "model": "tiny-bert", "max_steps": 3, "epochs": None}
FIELDS |= {"train_examples": 32, "eval_examples": 24, "max_length": 24, "batch_size": 8, "lr": 1e-3}


def again(folder, adapter_of=None):
    """The kept model, loaded by its library alone, and its tokenizer."""
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    kind = (
        AutoPeftModelForSequenceClassification if adapter_of else AutoModelForSequenceClassification
    )
    return kind.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["hift", "lora"])
def test_a_kept_model_predicts_what_was_scored(tmp_path, strategy):
    spec = make_spec(**FIELDS, strategy=strategy, label=strategy, keep="last")
    done = recipe.run(spec, tmp_path)
    folder = tmp_path / done.model_folder
    assert folder.parent == tmp_path / "models" and folder.name == spec.stem
    assert list(folder.glob("*.safetensors")) and not list(folder.glob("*.bin"))
    model, tokenizer = again(folder, strategy == "lora")
    adapter = tasks.base.adapter(tasks.base.load("glue/sst2"))
    from benchmark.data import examples
    from benchmark.run.settings import data_settings

    rows = examples.load(data_settings(spec), adapter, tokenizer).evaluation
    batch = adapter.collator(tokenizer)(list(rows.encoded.remove_columns(["truncated"])))
    with torch.no_grad():
        found = adapter.predict(model, batch, tokenizer)
    stored = predictions.read(tmp_path / done.predictions)
    assert found == stored.predictions and rows.ids == stored.ids
    # the same settings without it are the same run, whose record stands
    assert make_spec(**FIELDS, strategy=strategy, label=strategy).hash == spec.hash
    assert planning.state_of(spec, tmp_path) == "missing"  # in the folder of its matrix
    results = tmp_path / "results"
    record.write(done, planning.path_of(spec, results))
    assert planning.state_of(spec, results) == "stale"
    shutil.copytree(folder, planning.folder_of(spec, results) / done.model_folder)
    assert planning.state_of(spec, results) == "done"


class Saved:
    """A model that writes a file, or fails as on a full disk."""

    def __init__(self, fails=False):
        self._fails = fails

    def save_pretrained(self, folder):
        (Path(folder) / "model.safetensors").write_text("weights")
        if self._fails:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_model_is_whole_or_not_there_and_none_is_overwritten(tmp_path):
    done = make_record(make_spec(keep="last"))
    with pytest.raises(OSError, match="No space left"):
        kept.save(Saved(), Saved(fails=True), done, "run.abc", tmp_path)
    assert list(tmp_path.rglob("*.safetensors")) == []
    first, second = (kept.save(Saved(), Saved(), done, "run.abc", tmp_path) for _ in range(2))
    assert first == "models/run.abc" and first != second
    assert (tmp_path / first / "README.md").is_file() and (
        tmp_path / second / "README.md"
    ).is_file()


def test_the_card_says_what_the_record_says_and_is_harmless():
    spec = make_spec(label="<img src=x>|[a](b)", keep="last")
    done = make_record(spec, score=0.8125)
    text = kept.card(done, adapter=True)
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header) == {
        "library_name": "peft",
        "tags": ["hift-benchmark", spec.strategy],
    }
    assert "0.8125" in body and spec.hash in body and done.run_id in body
    assert "<img" not in body and "[a](b)" not in body
    on_hub = dataclasses.replace(done.inputs, model="a/b", model_source="hub")
    text = kept.card(dataclasses.replace(done, inputs=on_hub), adapter=False)
    assert yaml.safe_load(text.split("---\n", 2)[1])["base_model"] == "a/b"


@pytest.fixture(scope="module")
def model():
    source = registry.source("tiny-bert")
    return lambda: registry.load_model(source, "sequence_classification", 0)


def test_what_could_not_be_loaded_again_is_refused(model, tmp_path):
    for strategy, loads in {"hift": True, "lora": True, "houlsby": False, "lofit": False}.items():
        spec = make_spec(strategy=strategy)
        prepared = build(strategy, TrainingSettings.of(spec), {}).prepared(model())
        if loads:
            kept.check(prepared, strategy, tmp_path)
        else:
            with pytest.raises(Unsupported, match=f"keep: strategy {strategy} adds layers"):
                kept.check(prepared, strategy, tmp_path)


def test_a_disk_too_full_is_said_before_training(model, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"models: keep: the model takes .* MiB, and .* are free"):
        kept.check(model(), "full", tmp_path / "not" / "there")


MATRIX = """\
defaults: {model: tiny-bert, data: twin, max_steps: 2}
tasks: [glue/sst2]
strategies:
  full: {search: {lr: [1.0e-3, 2.0e-3], examples: 8}}
  best: {strategy: full, lr: 1.0e-3, select: best, dev_examples: 8}
  none: {}
"""


def test_keep_model_keeps_what_is_scored_of_every_run_that_trains(write):
    write(MATRIX)
    cells = matrix.load(Path("m.yaml")).keeping().cells
    assert [cell.runs(1e-3)[0].keep for cell in cells] == ["last", "best", "none"]
    assert {trial.keep for trial in cells[0].trials()} == {"none"}


def test_keep_must_go_with_select(write, refused):
    write(MATRIX.replace("max_steps: 2", "max_steps: 2, keep: last"))
    said = "m.yaml: defaults.keep: last requires select: last, as what is kept is what is scored"
    assert refused("plan", "m.yaml") == said
    write(MATRIX.replace("max_steps: 2", "max_steps: 2, keep: bset"))
    assert refused("plan", "m.yaml").endswith("keep: unknown value 'bset' (did you mean \"best\"?)")


def test_a_full_disk_costs_the_model_and_not_the_scores(
    write, in_process, go, monkeypatch, tmp_path
):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    in_process()
    monkeypatch.setattr(kept, "save", full)
    options = "train_examples: 8, eval_examples: 8, max_length: 16, keep: last, lr: 1.0e-3"
    _, watch = go(
        f"defaults: {{model: tiny-bert, data: twin, max_steps: 1, {options}}}\n"
        "tasks: [glue/sst2]\nstrategies: {full: {}}\n"
    )
    (done,) = record.load_all(tmp_path / "results/made_up")
    assert done.status == "success" and done.model_folder is None
    assert any("the model is not kept: " in note for (note,) in watch.of("noted"))
    assert json.loads((tmp_path / f"results/made_up/{done.run_id}.json").read_text())["scores"]
