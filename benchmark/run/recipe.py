"""One run, from spec to record, read top to bottom. THE file to read first.

seed -> task -> model -> strategy -> data -> fit -> predict -> score -> record. Nothing flows back. Each run
is a process of its own: `python -m benchmark.run.recipe SPEC.json FOLDER`, or a fork that is as good (see
`warm.py`). The runner reads its progress as JSON lines on stdout.
"""

import datetime
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning

import tasks.base
from benchmark import strategies
from benchmark.data import examples, loaders
from benchmark.errors import Unsupported, UserError
from benchmark.files import write_text
from benchmark.measure.training import CURVE_COLUMNS, Diverged, Measure, out_of_memory
from benchmark.models import registry
from benchmark.records import environment, predictions
from benchmark.records.record import Inputs, RunRecord, Times, curve_text, write
from benchmark.records.spec import RunSpec
from benchmark.run import compatibility, evaluation
from benchmark.run.module import PRECISIONS, FineTuning
from benchmark.run.parent import end_with
from benchmark.run.settings import training_settings
from benchmark.run.unfinished import Trained, Unfinished
from benchmark.run.validation import Validation
from tasks.metrics import NotFinite

Report = Callable[[dict[str, Any]], None]


def run(
    spec: RunSpec,
    folder: Path,
    report: Report = lambda row: None,
    scratch: Path | None = None,
) -> RunRecord:
    """Train and score one spec and write its record, curve and predictions below `folder`.

    Killed in the evaluation, it goes on from there when started again with the same `scratch` folder. Out of
    memory and divergence are results and become the record's status. Writes nothing and raises UserError or
    TaskError for bad input, Unsupported for a combination that cannot work.
    """
    started = datetime.datetime.now(datetime.UTC)
    lightning.seed_everything(spec.seed, workers=True, verbose=False)

    strategy = strategies.build(spec.strategy, training_settings(spec), spec.options)
    task = tasks.base.load(spec.task)
    adapter = tasks.base.adapter(task)
    source = registry.at_commit(registry.source(spec.model, spec.model_revision))
    tokenizer = registry.load_tokenizer(source)
    compatibility.check(spec, strategy, adapter, source, tokenizer)
    rows = examples.load(spec, adapter, tokenizer)
    if rows.long:
        report({"event": "note", "note": str(rows.long)})
    loaded = registry.load(
        source, adapter.head, tokenizer.pad_token_id, **adapter.model_arguments()
    )
    model = loaded.model
    inputs = Inputs(
        model=spec.model,
        model_source=source.kind,
        model_revision=source.revision,
        model_fingerprint=registry.fingerprint(model),
        dataset=task.dataset.title,
        dataset_source=spec.data,
        dataset_revision=rows.revision,
        dataset_fingerprint=rows.fingerprint,
        task_version=task.version,
        examples_train=len(rows.train.ids) if strategy.trains else spec.demonstrations,
        examples_eval=len(rows.evaluation.ids),
        examples_truncated=rows.truncated,
        read_train=rows.read["train"],
        read_eval=rows.read["eval"],
        left_out=rows.left_out,
        set_aside=rows.set_aside,
        long_train_dropped=rows.long.train_dropped,
        long_train_cut=rows.long.train_cut,
        long_eval_cut=rows.long.eval_cut,
        overlap_eval=rows.overlap_eval,
        overlap_dev=rows.overlap_dev,
        demonstrations_mean=rows.shown,
        initialised=loaded.initialised,
    )

    model = strategy.prepare(model).train()  # from_pretrained leaves it in eval mode: no dropout
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    total_steps = spec.steps(len(rows.train.ids))
    module = FineTuning(model, adapter, strategy, total_steps)
    measure = Measure(lambda row: report({"event": "step", "total": total_steps, **row}))
    validation = Validation(adapter, tokenizer, rows, spec, total_steps, measure)
    trainer = lightning.Trainer(
        max_steps=total_steps,
        max_epochs=-1,
        accelerator="auto",
        devices=1,
        precision=PRECISIONS.get(spec.precision, "32-true"),
        accumulate_grad_batches=spec.accumulate,
        gradient_clip_val=spec.clip,
        callbacks=[measure, validation],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

    name = f"{spec.run_id}.{spec.hash}"
    work = Unfinished(scratch and scratch / f"{name}.unfinished", inputs)
    trained = work.restore(model)
    resumed = trained is not None

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
                resumed=resumed,
            ),
            environment=environment.environment(source.packages),
            code=environment.code(),
            inputs=inputs,
            **results,
        )

    try:
        if trained is None:
            if strategy.trains:
                collate = adapter.collator(tokenizer)
                trainer.fit(module, loaders.training_batches(rows.train, collate, spec))
            else:
                measure.observe(model, trainer.strategy.root_device)
            trained = Trained(
                train=measure.train(),
                params=measure.params(),
                memory=measure.memory(),
                evaluations=validation.seen,
                curve=curve_text(measure.curve, CURVE_COLUMNS),
            )
            work.keep(trained, model, trainable)
        report({"event": "evaluating"})
        evaluation_started = time.time()
        device = trainer.strategy.root_device
        found = evaluation.evaluate(model, adapter, tokenizer, rows, spec, device=device, kept=work)
        evaluation_s = time.time() - evaluation_started
    except (Diverged, NotFinite) as error:
        done = record("diverged", str(error))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        done = record("oom", str(error).splitlines()[0] if str(error) else "out of memory")
    else:
        peak = trained.memory.peak_allocated if strategy.trains else found.peak
        curve = f"curves/{name}.csv" if strategy.trains else None
        if curve is not None:
            write_text(folder / curve, trained.curve)
        stored = f"predictions/{name}.jsonl" if found.predictions is not None else None
        if found.predictions is not None:
            predictions.write(folder / f"predictions/{name}.jsonl", found.predictions)
        done = record(
            "success",
            scores=found.scores,
            train=trained.train,
            params=trained.params,
            memory=replace(trained.memory, peak_allocated=peak, eval_peak=found.peak),
            evaluations=trained.evaluations,
            curve=curve,
            predictions=stored,
        )
        fixed = done.times.total_s - evaluation_s - (0 if resumed else trained.train.seconds)
        done = replace(done, times=replace(done.times, fixed_s=round(fixed, 3)))
    write(done, folder / f"{spec.run_id}.json")
    work.remove()
    return done


def main() -> int:
    """Run the spec of one file. The last event says why where it exits 2 (bad input) or 3 (unsupported)."""
    spec_path, folder = map(Path, sys.argv[1:])
    # whatever libraries print, stdout holds events alone
    events, sys.stdout = sys.stdout, sys.stderr

    def report(row: dict[str, Any]) -> None:
        print(json.dumps(row), file=events, flush=True)

    warnings.filterwarnings("ignore", module="lightning")
    spec = RunSpec.model_validate_json(spec_path.read_text(encoding="utf-8"))
    try:
        run(spec, folder, report, scratch=spec_path.parent)
    except Unsupported as error:
        report({"event": "unsupported", "error": str(error)})
        return 3
    except (UserError, tasks.base.TaskError) as error:
        report({"event": "refused", "error": " ".join(str(error).split())})
        return 2
    return 0


if __name__ == "__main__":
    end_with(os.getppid())
    sys.exit(main())
