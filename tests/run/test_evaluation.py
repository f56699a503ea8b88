"""The evaluation's own memory and precision, against counting every batch and against plain autocast."""

import pytest
import torch
from factories import make_spec

import tasks.base
from benchmark.data import examples, loaders
from benchmark.measure.live_bytes import LiveBytes
from benchmark.models import registry
from benchmark.models.precision import AUTOCAST
from benchmark.run import evaluation, recipe
from benchmark.run.module import mean_loss, on, predict_batch
from benchmark.run.settings import data_settings
from benchmark.run.unfinished import Unfinished

CPU = torch.device("cpu")


def loaded(task="glue/sst2", model="tiny-gpt2", device=CPU, **fields):
    """Spec, model, adapter, tokenizer and rows of one run."""
    usual = {"data": "twin", "eval_examples": 40, "eval_batch_size": 8, "train_examples": 8}
    spec = make_spec(task=task, model=model, max_length=96, **usual | fields)
    adapter = tasks.base.adapter(tasks.base.load(task))
    source = registry.source(model)
    tokenizer = registry.load_tokenizer(source)
    rows = examples.load(data_settings(spec), adapter, tokenizer).evaluation
    torch.manual_seed(0)
    model = registry.load_model(
        source, adapter.head, tokenizer.pad_token_id, **adapter.model_arguments()
    )
    return spec, model.to(device).eval(), adapter, tokenizer, rows


def evaluate(spec, model, adapter, tokenizer, rows, device=CPU):
    unfinished = Unfinished(None, {})
    return evaluation.predictions(
        model, adapter, tokenizer, rows, spec, device=device, unfinished=unfinished
    )


@pytest.mark.parametrize("task", ["glue/sst2", "mezo/sst2"])
def test_the_peak_is_that_of_the_batch_that_takes_most(task):
    spec, model, adapter, tokenizer, rows = loaded(task)
    predictions, peak = evaluate(spec, model, adapter, tokenizer, rows)
    peaks, plain = [], []
    for batch in loaders.EvaluationOrder(rows, 8).batches(adapter.collator(tokenizer)):
        plain += predict_batch(model, adapter, batch, tokenizer, "fp32")
        resident = [*model.parameters(), *model.buffers(), *batch.values()]
        with LiveBytes(resident) as counter:
            predict_batch(model, adapter, batch, tokenizer, "fp32")
        peaks.append(counter.peak)
    assert peak == max(peaks) > sum(p.nbytes for p in model.parameters())
    assert min(peaks) < max(peaks)
    assert predictions == loaders.EvaluationOrder(rows, 8).in_row_order(plain)


def test_it_does_not_grow_with_the_split():
    found = []
    for size in (40, 400):
        spec, *rest, rows = loaded("mezo/sst2", eval_examples=size)
        longest = max(rows.encoded["input_ids"], key=lambda pair: max(map(len, pair)))
        found.append((max(map(len, longest)), evaluate(spec, *rest, rows)[1]))
    (short, few), (long, many) = found
    assert many / few <= long / short + 0.05


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_is_computed_in_the_precision_of_the_training(precision, monkeypatch):
    spec, model, adapter, tokenizer, rows = loaded(precision=precision)
    seen = set()
    real = type(adapter).logits

    def watched(self, model, batch):
        logits = real(self, model, batch)
        seen.add(logits.dtype)
        return logits

    monkeypatch.setattr(type(adapter), "logits", watched)
    predictions, _ = evaluate(spec, model, adapter, tokenizer, rows)
    assert seen == {AUTOCAST.get(precision, torch.float32)}
    monkeypatch.undo()
    expected = []
    for batch in loaders.EvaluationOrder(rows, 8).batches(adapter.collator(tokenizer)):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            expected += model(**batch).logits.argmax(-1).tolist()
    assert predictions == loaders.EvaluationOrder(rows, 8).in_row_order(expected)


def test_the_record_has_it_beside_the_trainings(tmp_path):
    fields = {"train_examples": 16, "eval_examples": 10, "epochs": None, "max_steps": 2}
    record = recipe.run(make_spec(model="tiny-bert", data="twin", **fields), tmp_path)
    memory = record.memory
    assert memory.parameters < memory.eval_peak < memory.peak_allocated


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_allocators_less_what_waits_from_training():
    device = torch.device("cuda")
    spec, model, adapter, tokenizer, rows = loaded(device=device)
    waiting = torch.empty(2**26, device=device)
    _, peak = evaluate(spec, model, adapter, tokenizer, rows, device)
    batch = next(iter(loaders.EvaluationOrder(rows, 8).batches(adapter.collator(tokenizer))))
    del waiting
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    predict_batch(model, adapter, on(device, batch), tokenizer, "fp32")
    weights = sum(t.nbytes for t in [*model.parameters(), *model.buffers()])
    alone = torch.cuda.max_memory_allocated() - before + weights
    assert peak == pytest.approx(alone, rel=0.02)


def test_a_trial_by_the_loss_is_scored_by_that_of_held_out_rows_and_generates_nothing(
    tmp_path, monkeypatch
):
    spec = make_spec(
        **{
            "task": "generation/e2e_nlg",
            "model": "tiny-gpt2-512",
            "data": "twin",
            "max_length": 256,
        },
        **{"epochs": None, "max_steps": 2, "train_examples": 8, "dev_examples": 10, "seed": 3},
        **{"score_on": "dev_loss", "eval_batch_size": 4},
    )
    found = {}

    def watched(model, adapter, *rest):
        found["model"], found["adapter"] = model, adapter
        return mean_loss(model, adapter, *rest)

    monkeypatch.setattr(evaluation, "mean_loss", watched)
    monkeypatch.setattr(type(tasks.base.adapter(tasks.base.load(spec.task))), "predict", None)
    done = recipe.run(spec, tmp_path)
    adapter, tokenizer = found["adapter"], registry.load_tokenizer(registry.source(spec.model))
    rows = examples.load(data_settings(spec), adapter, tokenizer).development
    collate = adapter.collator(tokenizer)
    with torch.inference_mode():
        loader = loaders.batches_as_drawn(rows, collate, 4)
        losses = [adapter.loss(found["model"], batch).item() for batch in loader]
    mean = (4 * losses[0] + 4 * losses[1] + 2 * losses[2]) / 10
    assert done.scores.main == done.scores.all["loss"] == pytest.approx(mean, rel=1e-6)
    assert done.scores.stderr == pytest.approx(abs(losses[0] - losses[1]) / 2, rel=1e-5)
    assert (done.scores.metric, done.scores.higher_is_better, done.scores.n) == ("loss", False, 10)
    assert done.predictions is None and done.status == "success"
