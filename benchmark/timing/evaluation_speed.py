"""`hift-bench speed --evaluation`: examples per second, ours and those of transformers, timed in one process.

Both sides have the same model, encoded rows and batch size. Classification is compared with
`Trainer.evaluate`. Generation, which the Trainer does not do, is compared with `model.generate` over batches
in the order of the data set. The rows are those of twins and the weights are random, so every text has the
full length.
"""

import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

import tasks.base
from benchmark.data import examples, loaders
from benchmark.data.settings import DataSettings
from benchmark.models import registry
from benchmark.run.module import predict, ready
from tasks.batches import inputs
from tasks.generation import Generation

CELLS = (
    ("glue/sst2", "tiny-bert", 300),
    ("glue/mnli", "tiny-bert", 300),
    ("mezo/squad", "tiny-gpt2", 40),
    ("generation/dart", "tiny-gpt2", 16),
)
"""Task, model and number of examples, one entry for each row of the table."""

Run = Callable[[], object]


def measure(
    *,
    batch_size: int = 8,
    repeats: int = 5,
    report: Callable[[int, int], None] = lambda done, of: None,
) -> list[dict[str, Any]]:
    """One row per task: examples per second of both sides, and the ratio of ours to that of transformers.

    Each side counts with the fastest of its `repeats` runs, since other load can only slow a run down. The
    sides alternate, and so does the one that goes first. report: called with (runs done, runs in all).
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for at, (task, model, n) in enumerate(CELLS):
        sides = _sides(task, model, batch_size, n, device)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for repeat in range(repeats + 1):
            for name, run in sorted(sides.items(), reverse=repeat % 2 == 0):
                began = time.perf_counter()
                run()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if repeat:  # the first one warms up
                    seconds[name].append(time.perf_counter() - began)
            report(at * (repeats + 1) + repeat + 1, len(CELLS) * (repeats + 1))
        ours, theirs = (n / min(times) for times in seconds.values())
        rows.append(
            {
                "task": task,
                "model": model,
                "batch_size": batch_size,
                "ours_per_s": round(ours, 1),
                "transformers_per_s": round(theirs, 1),
                "ratio": round(ours / theirs, 3),
                "against": list(sides)[1],
            }
        )
    return rows


def _sides(
    task: str, model_name: str, batch_size: int, n_examples: int, device: torch.device
) -> dict[str, Run]:
    """Two functions that predict the same encoded rows: "ours", and the one of transformers under its
    name."""
    adapter = tasks.base.adapter(tasks.base.load(task))
    source = registry.source(model_name)
    tokenizer = registry.load_tokenizer(source)
    settings = DataSettings(data="twin", seed=0, train_examples=1, eval_examples=n_examples)
    rows = examples.load(settings, adapter, tokenizer).evaluation
    torch.manual_seed(0)
    model = registry.load_model(
        source, adapter.head, tokenizer.pad_token_id, **adapter.model_arguments()
    )
    ready(model, device)
    collate = adapter.collator(tokenizer)

    def ours() -> object:
        order = loaders.EvaluationOrder(rows, batch_size)
        predictions = predict(model, adapter, order.batches(collate), tokenizer, device)
        return order.in_row_order(predictions)

    if isinstance(adapter, Generation):
        return {
            "ours": ours,
            "model.generate": _generate(model, adapter, rows, tokenizer, batch_size),
        }
    return {"ours": ours, "Trainer.evaluate": _trainer(model, rows, tokenizer, batch_size)}


def _trainer(model: Any, rows: examples.Rows, tokenizer: Any, batch_size: int) -> Run:
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),
        per_device_eval_batch_size=batch_size,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    assert rows.encoded is not None
    encoded = rows.encoded.remove_columns("truncated")
    trainer = Trainer(model, arguments, DataCollatorWithPadding(tokenizer), eval_dataset=encoded)
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, where the table goes
    return trainer.evaluate


def _generate(
    model: Any, adapter: Generation, rows: examples.Rows, tokenizer: Any, batch_size: int
) -> Run:
    decoding, encoded = adapter.config.decoding, rows.encoded
    assert encoded is not None

    @torch.no_grad()
    def generate() -> list[str]:
        texts = []
        for start in range(0, len(rows.ids), batch_size):
            batch = encoded[start : start + batch_size]
            pairs = zip(batch["input_ids"], batch["answer_lengths"], strict=True)
            prompts = inputs([ids[:-n] for ids, n in pairs], tokenizer.pad_token_id)
            out = model.generate(
                **{name: tensor.to(model.device) for name, tensor in prompts.items()},
                max_new_tokens=batch["new_tokens"][0],
                do_sample=False,
                num_beams=decoding.beams,
                length_penalty=decoding.length_penalty,
                logits_processor=adapter.processors(prompts["input_ids"].shape[1]),
                eos_token_id=adapter.ends(tokenizer),
                pad_token_id=tokenizer.pad_token_id,
            )
            new = out[:, prompts["input_ids"].shape[1] :]
            texts += tokenizer.batch_decode(new, skip_special_tokens=True)
        return texts

    return generate
