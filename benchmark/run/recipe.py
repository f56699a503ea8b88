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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning

import tasks.base
from benchmark import strategies
from benchmark.data import examples
from benchmark.data.examples import Data
from benchmark.errors import Unsupported, UserError
from benchmark.files import write_text
from benchmark.measure.training import Diverged, out_of_memory
from benchmark.models import registry
from benchmark.models.registry import Loaded, Source
from benchmark.records import environment, predictions
from benchmark.records.record import Inputs, RunRecord, Status, Times, write
from benchmark.records.spec import RunSpec
from benchmark.run import compatibility
from benchmark.run.evaluation import Evaluated, evaluate
from benchmark.run.fit import Fit, Report
from benchmark.run.parent import end_with
from benchmark.run.settings import data_settings, training_settings
from benchmark.run.unfinished import Trained, Unfinished
from tasks.base import Adapter
from tasks.metrics import NotFinite


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

    # who takes part; what cannot work together is refused before data or weights are read
    strategy = strategies.build(spec.strategy, training_settings(spec), spec.options)
    adapter = tasks.base.adapter(tasks.base.load(spec.task))
    source = registry.at_commit(registry.source(spec.model, spec.model_revision))
    tokenizer = registry.load_tokenizer(source)
    compatibility.check(spec, strategy, adapter, source, tokenizer)

    # the rows, the weights, and the record's note of both
    data = examples.load(data_settings(spec), adapter, tokenizer)
    if data.long:
        report({"event": "note", "note": str(data.long)})
    arguments = adapter.model_arguments()
    loaded = registry.load(source, adapter.head, tokenizer.pad_token_id, **arguments)
    inputs = _inputs(spec, adapter, source, data, loaded)
    # from_pretrained leaves the model in eval mode, without dropout
    model = strategy.prepare(loaded.model).train()
    fit = Fit(spec, strategy, adapter, tokenizer, model, data, report)

    # train, unless an earlier start of this run has; then predict and score
    unfinished = Unfinished(scratch and scratch / f"{_name(spec)}.unfinished", inputs)
    trained = unfinished.restore(model)
    common = _Common(spec, started, source, inputs, resumed=trained is not None)
    try:
        if trained is None:
            trained = fit.train()
            unfinished.keep(trained, model, fit.trainable)
        report({"event": "evaluating"})
        evaluation_started = time.time()
        evaluated = evaluate(
            model, adapter, tokenizer, data, spec, device=fit.device, kept=unfinished
        )
        evaluation_s = time.time() - evaluation_started
    except (Diverged, NotFinite) as error:
        done = common.record("diverged", str(error))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        done = common.record("oom", str(error).splitlines()[0] if str(error) else "out of memory")
    else:
        done = _success(common, folder, trained, evaluated, evaluation_s)
    write(done, folder / f"{spec.run_id}.json")
    unfinished.remove()
    return done


def _name(spec: RunSpec) -> str:
    """Of the files of this very spec, beside its record."""
    return f"{spec.run_id}.{spec.hash}"


def _inputs(spec: RunSpec, adapter: Adapter, source: Source, data: Data, loaded: Loaded) -> Inputs:
    """What the run is made from, before anything is trained."""
    task = adapter.config
    return Inputs(
        model=spec.model,
        model_source=source.kind,
        model_revision=source.revision,
        model_fingerprint=registry.fingerprint(loaded.model),
        dataset=task.dataset.title,
        dataset_source=spec.data,
        dataset_revision=data.revision,
        dataset_fingerprint=data.fingerprint,
        task_version=task.version,
        examples_train=spec.demonstrations if spec.lr is None else len(data.train.ids),
        examples_eval=len(data.evaluation.ids),
        examples_truncated=data.truncated,
        read_train=data.read["train"],
        read_eval=data.read["eval"],
        left_out=data.left_out,
        set_aside=data.set_aside,
        long_train_dropped=data.long.train_dropped,
        long_train_cut=data.long.train_cut,
        long_eval_cut=data.long.eval_cut,
        overlap_eval=data.overlap_eval,
        overlap_dev=data.overlap_dev,
        demonstrations_mean=data.shown,
        initialised=loaded.initialised,
    )


@dataclass(frozen=True)
class _Common:
    """What the record says however the run ends."""

    spec: RunSpec
    started: datetime.datetime
    source: Source
    inputs: Inputs
    resumed: bool

    def record(self, status: Status, error: str | None = None, **results: Any) -> RunRecord:
        """The record of a run that ends now."""
        finished = datetime.datetime.now(datetime.UTC)
        return RunRecord(
            run_id=self.spec.run_id,
            spec_hash=self.spec.hash,
            status=status,
            error=error,
            spec=self.spec.model_dump(mode="json"),
            times=Times(
                started=self.started.isoformat(timespec="milliseconds"),
                finished=finished.isoformat(timespec="milliseconds"),
                total_s=round(time.time() - environment.process_started(), 3),
                resumed=self.resumed,
            ),
            environment=environment.environment(self.source.packages),
            code=environment.code(),
            inputs=self.inputs,
            **results,
        )


def _success(
    common: _Common, folder: Path, trained: Trained, evaluated: Evaluated, evaluation_s: float
) -> RunRecord:
    """The record of a run that came to its scores; its curve and predictions are written."""
    name, trains = _name(common.spec), common.spec.lr is not None
    curve = f"curves/{name}.csv" if trains else None
    if curve is not None:
        write_text(folder / curve, trained.curve)
    stored = f"predictions/{name}.jsonl" if evaluated.predictions is not None else None
    if stored is not None and evaluated.predictions is not None:
        predictions.write(folder / stored, evaluated.predictions)
    memory = replace(trained.memory, eval_peak=evaluated.peak)
    if not trains and evaluated.peak is not None:
        memory = replace(memory, peak_allocated=evaluated.peak)
    done = common.record(
        "success",
        scores=evaluated.scores,
        train=trained.train,
        params=trained.params,
        memory=memory,
        evaluations=trained.evaluations,
        curve=curve,
        predictions=stored,
    )
    fixed = done.times.total_s - evaluation_s - (0 if common.resumed else trained.train.seconds)
    return replace(done, times=replace(done.times, fixed_s=round(fixed, 3)))


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
