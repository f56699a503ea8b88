"""One run, from spec to record, read top to bottom. THE file to read first.

seed -> task -> model -> strategy -> data -> fit -> predict -> score -> record. Nothing flows back. The runner
starts each run as `python -m benchmark.recipe SPEC.json FOLDER`, a process of its own, and reads its progress
as JSON lines on stdout.
"""

import csv
import datetime
import io
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch

import tasks.base
from benchmark import data, environment, models
from benchmark.errors import Unsupported, UserError
from benchmark.measure import CURVE_COLUMNS, Diverged, Measure
from benchmark.module import PRECISIONS, FineTuning, predict
from benchmark.record import Inputs, RunRecord, Scores, Times, write, write_text
from benchmark.selection import KeepBest
from benchmark.spec import RunSpec
from benchmark.strategies import strategy_class

Report = Callable[[dict[str, Any]], None]


def run(spec: RunSpec, folder: Path, report: Report = lambda row: None) -> RunRecord:
    """Train and score one spec and write its record, curve and predictions below `folder`.

    Out of memory and divergence are results and become the record's status. Writes nothing and raises
    UserError or TaskError for bad input, Unsupported for a combination that cannot work.
    """
    started = datetime.datetime.now(datetime.UTC)
    lightning.seed_everything(spec.seed, workers=True, verbose=False)

    strategy = strategy_class(spec.strategy)(spec)
    if spec.precision == "fp16" and not torch.cuda.is_available():
        raise Unsupported("fp16 needs a CUDA device; a CPU trains in fp32, bf16 or mixed_hi")
    task = tasks.base.load(spec.task)
    adapter = tasks.base.adapter(task)
    source = models.source(spec.model, spec.model_revision)
    models.check_head(source, adapter.head)
    tokenizer = models.load_tokenizer(source)
    rows = data.load(spec, adapter, tokenizer)
    model = models.load_model(
        source, adapter.head, tokenizer.pad_token_id, **adapter.model_arguments()
    )
    positions = getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)
    if spec.max_length > min(positions, tokenizer.model_max_length):
        raise UserError(f"max_length: {spec.max_length} is more than the positions of {spec.model}")
    inputs = Inputs(
        model=spec.model,
        model_source=source.kind,
        model_revision=source.revision,
        model_fingerprint=models.fingerprint(model),
        dataset=task.dataset.title,
        dataset_source=spec.data,
        dataset_revision=task.dataset.pinned if spec.data == "hub" else None,
        dataset_fingerprint=rows.fingerprint,
        task_version=task.version,
        examples_train=len(rows.train.ids),
        examples_eval=len(rows.evaluation.ids),
        examples_truncated=rows.truncated,
    )

    model = strategy.prepare(model).train()  # from_pretrained leaves it in eval mode: no dropout
    total_steps = spec.steps(len(rows.train.ids))
    module = FineTuning(model, adapter, strategy, total_steps)
    collate = adapter.collator(tokenizer)
    measure = Measure(lambda row: report({"event": "step", "total": total_steps, **row}))
    callbacks: list[lightning.Callback] = [measure]
    if spec.select == "best":
        assert rows.development is not None
        held_out = data.evaluation_batches(rows.development, collate, spec.eval_batch_size)
        callbacks.append(
            KeepBest(adapter, tokenizer, held_out, rows.development, total_steps, measure)
        )
    trainer = lightning.Trainer(
        max_steps=total_steps,
        max_epochs=-1,
        accelerator="auto",
        devices=1,
        precision=PRECISIONS.get(spec.precision, "32-true"),
        accumulate_grad_batches=spec.accumulate,
        gradient_clip_val=spec.clip,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

    def record(status: Any, error: str | None = None, **results: Any) -> RunRecord:
        finished = datetime.datetime.now(datetime.UTC)
        return RunRecord(
            run_id=spec.run_id,
            spec_hash=spec.hash,
            status=status,
            error=error,
            spec=spec.model_dump(mode="json"),
            times=Times(
                started=started.isoformat(timespec="milliseconds"),
                finished=finished.isoformat(timespec="milliseconds"),
                total_s=round(time.time() - environment.process_started(), 3),
            ),
            environment=environment.environment(),
            code=environment.code(),
            inputs=inputs,
            **results,
        )

    name = f"{spec.run_id}.{spec.hash}"
    try:
        trainer.fit(module, data.training_batches(rows.train, collate, spec))
        report({"event": "evaluating"})
        evaluation_started = time.time()
        scored = rows.development if spec.score_on == "dev" else rows.evaluation
        assert scored is not None
        loader = data.evaluation_batches(scored, collate, spec.eval_batch_size)
        in_order = predict(model, adapter, loader, tokenizer, measure.device)
        predictions = data.row_order(scored, in_order)
        scores = adapter.score(predictions, scored.references)
        evaluation_s = time.time() - evaluation_started
    except Diverged as error:
        done = record("diverged", str(error))
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
        done = record("oom", str(error).splitlines()[0] if str(error) else "out of memory")
    else:
        write_text(folder / "curves" / f"{name}.csv", _csv(measure.curve))
        lines = zip(scored.ids, predictions, scored.references, strict=True)
        write_text(
            folder / "predictions" / f"{name}.jsonl",
            "".join(
                json.dumps({"id": i, "prediction": p, "reference": r}) + "\n" for i, p, r in lines
            ),
        )
        train = measure.train()
        done = record(
            "success",
            scores=Scores(
                main=scores[task.main_key],
                metric=task.main_key,
                metric_version=task.main_version,
                higher_is_better=task.higher_is_better,
                split=scored.split,
                n=len(predictions),
                all=scores,
            ),
            train=train,
            params=measure.params(),
            memory=measure.memory(),
            curve=f"curves/{name}.csv",
            predictions=f"predictions/{name}.jsonl",
        )
        fixed = done.times.total_s - train.seconds - evaluation_s
        done = replace(done, times=replace(done.times, fixed_s=round(fixed, 3)))
    write(done, folder / f"{spec.run_id}.json")
    return done


def _out_of_memory(error: Exception) -> bool:
    """Whether torch, on a device or on a CPU, or Python could not get the memory it asked for."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, CURVE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def main() -> int:
    """Run the spec of one file. The last event says why where it exits 2 (bad input) or 3 (unsupported)."""
    spec_path, folder = map(Path, sys.argv[1:])
    events, sys.stdout = (
        sys.stdout,
        sys.stderr,
    )  # whatever libraries print, stdout holds events alone

    def report(row: dict[str, Any]) -> None:
        print(json.dumps(row), file=events, flush=True)

    warnings.filterwarnings("ignore", module="lightning")
    spec = RunSpec.model_validate_json(spec_path.read_text(encoding="utf-8"))
    try:
        run(spec, folder, report)
    except Unsupported as error:
        report({"event": "unsupported", "error": str(error)})
        return 3
    except (UserError, tasks.base.TaskError) as error:
        report({"event": "refused", "error": " ".join(str(error).split())})
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
