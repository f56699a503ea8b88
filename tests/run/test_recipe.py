"""One run against a training loop written out with torch and transformers alone, and what its record says."""

import csv
import json
import random

import numpy as np
import pytest
import scipy.stats
import torch
from factories import make_spec
from transformers import AutoModelForSequenceClassification

import tasks.base
from benchmark.data import examples, loaders
from benchmark.errors import Unsupported, UserError
from benchmark.measure.training import CURVE_COLUMNS
from benchmark.models import registry
from benchmark.records import record as records
from benchmark.run import recipe
from benchmark.run.module import FineTuning
from benchmark.run.settings import data_settings
from tasks import batches

TASK = tasks.base.load("glue/sst2")
ADAPTER = tasks.base.adapter(TASK)
USUAL = {
    "model": "tiny-bert",
    "data": "twin",
    "epochs": None,
    "max_steps": 7,
    "train_examples": 44,
    "eval_examples": 30,
    "batch_size": 8,
    "max_length": 24,
    "lr": 1e-3,
}


def spec_of(**fields):
    return make_spec(**(USUAL | fields))


def written_out(spec, *, train_mode=True):
    """Full fine-tuning of the tiny model, nothing of the suite but the rows: losses, rates, the model."""
    torch.manual_seed(spec.seed)
    random.seed(spec.seed)
    np.random.seed(spec.seed)
    folder = registry.source(spec.model).location
    tokenizer = registry.load_tokenizer(registry.source(spec.model))
    rows = examples.load(data_settings(spec), ADAPTER, tokenizer)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    model.train(train_mode)
    named = list(model.named_parameters())
    groups = [
        {"params": [p for _, p in named if p.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=spec.lr)
    loader = loaders.training_batches(rows.train, ADAPTER.collator(tokenizer), spec)
    total = spec.steps(len(rows.train.ids))
    losses, rates, tokens, n_examples = [], [], 0, 0
    while len(losses) < total:
        batches = list(loader)
        for window in windows(batches, spec):
            if len(losses) == total:
                break
            for group in optimizer.param_groups:
                group["lr"] = spec.lr * (total - len(losses)) / total
            seen = []
            for batch in window:
                loss = model(**batch).loss
                (loss / spec.accumulate).backward()
                seen.append(loss.item())
                tokens += int(batch["attention_mask"].sum())
                n_examples += len(batch["labels"])
            if spec.clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), spec.clip)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(sum(seen) / len(seen))
            rates.append(optimizer.param_groups[0]["lr"])
    return {
        "losses": losses,
        "rates": rates,
        "tokens": tokens,
        "examples": n_examples,
        "model": model.eval(),
        "rows": rows,
        "tokenizer": tokenizer,
    }


def windows(batches, spec):
    """The micro-batches of each optimizer step; the last of an epoch may be short."""
    return [batches[i : i + spec.accumulate] for i in range(0, len(batches), spec.accumulate)]


def curve_of(record, folder):
    return records.read_curve(folder / record.curve)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def full(folder):
    return recipe.run(spec_of(), folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"accumulate": 4},  # six batches an epoch: windows of 4 and 2
        {"clip": 0.1, "weight_decay": 0.1, "seed": 3},
        {"epochs": 2, "max_steps": None, "group_by_length": True, "batch_size": 2},
    ],
    ids=["accumulate", "clip and decay", "epochs grouped by length"],
)
def test_full_fine_tuning_is_the_written_out_loop(fields, folder):
    spec = spec_of(label="-".join(fields), **fields)
    record = recipe.run(spec, folder)
    expected = written_out(spec)
    curve = curve_of(record, folder)
    assert curve["step"] == list(range(1, len(expected["losses"]) + 1)), "a row per optimizer step"
    assert curve["loss"] == pytest.approx(expected["losses"], rel=1e-6)
    assert curve["lr"] == pytest.approx(expected["rates"], rel=1e-12)
    assert set(curve["trainable_ratio"]) == {1.0} and set(curve["group"]) == {0.0}
    assert (record.train.tokens, record.train.examples, record.train.steps) == (
        *(expected["tokens"], expected["examples"], len(expected["losses"])),
    )
    assert record.train.final_loss == curve["loss"][-1]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full", "hift"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_fused_optimizer_does_the_same_with_clipping_too(strategy, precision, tmp_path):
    fields = {"strategy": strategy, "precision": precision, "clip": 0.1, "max_steps": 8}
    plain, fused = (
        curve_of(recipe.run(spec_of(fused=fused, **fields), tmp_path), tmp_path)["loss"]
        for fused in (False, True)
    )
    assert fused == pytest.approx(plain, rel=1e-5 if precision == "fp32" else 1e-2)


def test_dropout_is_active_in_training(full, folder):
    losses = curve_of(full, folder)["loss"]
    assert losses == pytest.approx(written_out(spec_of())["losses"], rel=1e-6)
    assert losses != pytest.approx(written_out(spec_of(), train_mode=False)["losses"], rel=1e-3)


@pytest.fixture(scope="module")
def lines(folder):
    """The predictions file of a run that says both labels, its record and its spec."""
    spec = spec_of(model="tiny-gpt2", seed=1)
    record = recipe.run(spec, folder)
    lines = [json.loads(x) for x in (folder / record.predictions).read_text().splitlines()]
    assert {line["prediction"] for line in lines} == {0, 1}
    return lines, record, spec


def test_predictions_are_in_the_order_of_the_rows_and_those_of_the_trained_model(lines):
    lines, _, spec = lines
    expected = written_out(spec)
    rows = expected["rows"].evaluation
    assert [line["id"] for line in lines] == rows.ids
    assert [line["reference"] for line in lines] == rows.references
    with torch.inference_mode():
        alone = [
            expected["model"](input_ids=torch.tensor([ids])).logits.argmax(-1).item()
            for ids in rows.encoded["input_ids"]
        ]
    assert [line["prediction"] for line in lines] == alone


def test_the_predictions_score_again_to_what_is_recorded(lines):
    lines, record, _ = lines
    again = ADAPTER.score([x["prediction"] for x in lines], [x["reference"] for x in lines])
    assert again == record.scores.all and record.scores.main == again["accuracy"]
    assert record.scores.n == len(lines) == USUAL["eval_examples"]
    assert (record.scores.metric, record.scores.metric_version, record.scores.split) == (
        *("accuracy", "accuracy@1", "validation"),
    )
    hits = [float(x["prediction"] == x["reference"]) for x in lines]
    assert [x["score"] for x in lines] == hits
    assert record.scores.stderr == pytest.approx(scipy.stats.sem(hits))


def test_the_record_on_disk_is_the_one_returned_and_names_its_files(full, folder):
    spec = spec_of()
    assert records.load(folder / f"{spec.run_id}.json") == full
    assert full.status == "success" and full.error is None
    assert (full.run_id, full.spec_hash) == (spec.run_id, spec.hash)
    assert full.spec == spec.model_dump(mode="json")
    with open(folder / full.curve, newline="") as file:
        assert next(csv.reader(file)) == list(CURVE_COLUMNS)
    assert full.times.total_s >= full.train.seconds
    assert full.times.fixed_s == pytest.approx(full.times.total_s - full.train.seconds, abs=5)
    assert full.inputs.examples_train == 44 and full.inputs.examples_eval == 30
    assert full.inputs.model_revision and full.inputs.dataset_source == "twin"


def test_a_run_is_the_same_again_and_another_seed_is_not(full, folder, tmp_path):
    torch.rand(10)  # whatever was drawn before in this process
    again = recipe.run(spec_of(), tmp_path)
    assert curve_of(again, tmp_path)["loss"] == curve_of(full, folder)["loss"]
    assert again.scores == full.scores and again.inputs == full.inputs
    other = recipe.run(spec_of(seed=1), tmp_path)
    assert curve_of(other, tmp_path)["loss"][0] != curve_of(full, folder)["loss"][0]


def test_hift_with_one_group_is_full_fine_tuning(full, folder):
    one = recipe.run(spec_of(strategy="hift", options={"group_size": 6}), folder)
    a, b = curve_of(one, folder), curve_of(full, folder)
    assert (a["loss"], a["lr"]) == (b["loss"], b["lr"])
    assert one.scores == full.scores and one.params.groups == 1


def test_each_step_is_reported_as_it_comes_with_the_total(tmp_path):
    events = []
    recipe.run(spec_of(), tmp_path, events.append)
    steps = [e for e in events if e["event"] == "step"]
    assert [e["step"] for e in steps] == list(range(1, 8)) and {e["total"] for e in steps} == {7}
    assert events[-1] == {"event": "evaluating"}
    json.dumps(events, allow_nan=False)


def test_a_trial_is_scored_on_rows_held_out_of_train(tmp_path):
    spec = spec_of(score_on="dev", dev_examples=25)
    record = recipe.run(spec, tmp_path)
    rows = examples.load(
        data_settings(spec), ADAPTER, registry.load_tokenizer(registry.source("tiny-bert"))
    )
    lines = [json.loads(x) for x in (tmp_path / record.predictions).read_text().splitlines()]
    assert [line["id"] for line in lines] == rows.development.ids
    assert record.scores.n == 25 and "held out" in record.scores.split
    assert not {line["id"] for line in lines} & set(rows.evaluation.ids)


def test_divergence_is_a_result(tmp_path):
    record = recipe.run(spec_of(lr=1e30), tmp_path)
    assert (record.status, record.scores, record.curve) == ("diverged", None, None)
    assert "loss" in record.error and "step" in record.error
    assert records.load(tmp_path / f"{record.run_id}.json") == record
    assert not (tmp_path / "predictions").exists()


def test_divergence_in_the_last_step_shows_in_the_score_and_is_a_result(tmp_path):
    """The loss was finite; the weights after it give no number that can be correlated."""
    spec = spec_of(task="glue/stsb", optimizer="sgd", lr=1e30, epochs=None, max_steps=1)
    record = recipe.run(spec, tmp_path)
    assert (record.status, record.scores) == ("diverged", None)
    assert record.error == "pearson: pearson is nan, so some prediction is not finite"


@pytest.mark.parametrize(
    "ask",
    [
        lambda: torch.empty(2**50),  # torch's CPU allocator raises a plain RuntimeError
        lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried to …")),
        lambda: (_ for _ in ()).throw(MemoryError()),
    ],
    ids=["cpu", "cuda", "python"],
)
def test_running_out_of_memory_is_a_result(tmp_path, monkeypatch, ask):
    monkeypatch.setattr(FineTuning, "training_step", lambda *_: ask())
    record = recipe.run(spec_of(), tmp_path)
    assert record.status == "oom" and record.scores is None
    assert "memory" in record.error and "\n" not in record.error


def test_any_other_error_is_no_result(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("a defect")

    monkeypatch.setattr(FineTuning, "training_step", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        recipe.run(spec_of(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_bad_input_writes_nothing(tmp_path):
    with pytest.raises(UserError, match="train_examples 100000"):
        recipe.run(spec_of(train_examples=100_000), tmp_path)
    for unsupported in ({"precision": "mixed_hi"}, {"precision": "fp16"}):
        if torch.cuda.is_available() and unsupported["precision"] == "fp16":
            continue
        with pytest.raises(Unsupported):
            recipe.run(spec_of(**unsupported), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["bf16", "bf16_weights", "mixed_hi"])
def test_low_precision_trains_on_a_cpu_and_differs_from_fp32(full, folder, precision):
    spec = spec_of(strategy="hift", precision=precision, label=precision, options={"group_size": 6})
    losses = curve_of(recipe.run(spec, folder), folder)["loss"]
    exact = curve_of(full, folder)["loss"]
    assert losses != exact
    assert losses == pytest.approx(exact, rel=0.1)


def test_mixed_is_mixed_hi_with_all_masters_on_the_device(folder):
    made = {
        name: recipe.run(spec_of(strategy="hift", precision=name, label=name), folder)
        for name in ("mixed", "mixed_hi")
    }
    curves = {name: curve_of(record, folder)["loss"] for name, record in made.items()}
    assert curves["mixed"] == curves["mixed_hi"]
    masters = {name: record.memory.master for name, record in made.items()}
    assert masters["mixed"] == 4 * made["mixed"].params.total > masters["mixed_hi"]


@pytest.mark.parametrize("task", ["mezo/squad", "mezo/copa"])
def test_the_loss_in_chunks_is_the_loss(task, tmp_path, monkeypatch):
    in_chunks, made = batches.token_losses, []
    monkeypatch.setattr(batches, "token_losses", lambda *a: made.append(1) or in_chunks(*a))
    usual = {"task": task, "model": "tiny-gpt2", "max_steps": 2, "batch_size": 4, "max_length": 128}
    usual |= {"train_examples": 8, "eval_examples": 4, "strategy": "hift", "checkpointing": True}
    curves = {}
    for loss in ("whole", "chunked"):
        record = recipe.run(spec_of(**usual | {"loss": loss, "label": loss}), tmp_path)
        curves[loss] = curve_of(record, tmp_path)["loss"]
        assert (loss == "chunked") == bool(made)
    assert curves["chunked"] == pytest.approx(curves["whole"], rel=1e-5)


def test_the_loss_in_chunks_is_refused_without_a_causal_lm(tmp_path):
    with pytest.raises(Unsupported, match=r"chunked is for causal LMs.*use loss: whole"):
        recipe.run(spec_of(loss="chunked"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_more_tokens_than_the_model_has_positions(tmp_path):
    spec = make_spec(model="tiny-bert", data="twin", max_length=4096)
    with pytest.raises(UserError, match=r"max_length: 4096 .* tiny-bert"):
        recipe.run(spec, tmp_path)
    assert not list(tmp_path.iterdir())
