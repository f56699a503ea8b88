"""One run, from its spec to its record. Read this file first; `run` is the whole of it, top to bottom.

seed -> strategy, task, model -> data -> training -> predictions -> scores -> record. Data flows one way.
Each run is a process of its own, started as `python -m benchmark.run.recipe SPEC.json FOLDER` or forked by
the warm server (`warm.py`). It reports its progress to the runner as JSON lines on stdout.
"""

import datetime
import json
import os
import sys
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning

import tasks.base
from benchmark import strategies
from benchmark.data import examples
from benchmark.data.examples import Data
from benchmark.errors import Unsupported, UserError
from benchmark.files import write_text
from benchmark.lifetime import RUNNER, die_at_once, end_together, end_with
from benchmark.measure.peaks import out_of_memory
from benchmark.measure.training import Diverged
from benchmark.models import registry
from benchmark.models.checkpointing import recompute_activations
from benchmark.models.registry import Loaded, Source
from benchmark.records import environment, predictions
from benchmark.records.folders import UNFINISHED
from benchmark.records.record import Inputs, RunRecord, Status, Times, write
from benchmark.records.spec import RunSpec
from benchmark.run import compatibility, kept
from benchmark.run.allocator import keep_freed_memory
from benchmark.run.evaluation import Evaluated, evaluate
from benchmark.run.fit import Fit, Report
from benchmark.run.ranks import Ranks
from benchmark.run.settings import data_settings
from benchmark.run.unfinished import Trained, Unfinished
from benchmark.strategies.settings import TrainingSettings
from tasks import own
from tasks.base import Adapter, TaskConfig
from tasks.metrics import NotFinite


def run(
    spec: RunSpec,
    folder: Path,
    report: Report = lambda row: None,
    scratch: Path | None = None,
    ranks: Ranks | None = None,
) -> RunRecord:
    """Train and score the model that `spec` describes. Writes and returns the record of the run.

    The record, the training curve and the predictions are written below `folder`. Running out of memory and
    diverging are results: they become the record's status. `report` is called with each progress event.

    `scratch`: folder for the state of an unfinished run. If the process is killed, the next start with the
    same folder goes on from the last checkpoint of the training, or after the last batch scored. None:
    nothing is saved. `ranks`: which of the processes of a run with several devices this is, by default the
    first; the others train, and end.

    Raises UserError or TaskError for bad input and Unsupported for a combination that cannot work. Then
    nothing is written.
    """
    started = datetime.datetime.now(datetime.UTC)
    ranks = ranks or Ranks(0, spec.devices)
    lightning.seed_everything(spec.seed, workers=True, verbose=False)

    # 1. strategy, task and model; a combination that cannot work is refused before data or weights are read
    strategy = strategies.build(spec.strategy, TrainingSettings.of(spec), spec.options)
    adapter = tasks.base.adapter(_task(spec))
    adapter.chunked = spec.loss == "chunked"
    source = registry.at_commit(registry.source(spec.model, spec.model_revision))
    tokenizer = registry.load_tokenizer(source)
    compatibility.check(spec, strategy, adapter, source, tokenizer)

    # 2. the rows (training, held-out and evaluation) and the pretrained weights
    data = examples.load(data_settings(spec), adapter, tokenizer)
    if data.long:
        report({"event": "note", "note": str(data.long)})
    arguments = adapter.model_arguments()
    loaded = registry.load(source, adapter.head, tokenizer.pad_token_id, **arguments)
    inputs = _inputs(spec, adapter, source, data, loaded)
    if spec.checkpointing and not strategy.recomputes:
        recompute_activations(loaded.model)
    # .train() because from_pretrained returns the model in eval mode, without dropout
    model = strategy.prepared(loaded.model).train()
    if spec.keep != "none":
        kept.check(model, spec.strategy, folder)
    unfinished = Unfinished(
        scratch and scratch / f"{spec.stem}{UNFINISHED}",
        _identity(spec, inputs, source),
        note=lambda text: report({"event": "note", "note": text}),
        writes=ranks.is_first,
    )
    fit = Fit(spec, strategy, adapter, tokenizer, model, data, report, unfinished, ranks)

    # 3. train, unless an earlier start of this run has finished training; then predict and score
    common = _Common(spec, started, source, inputs, unfinished)
    try:
        trained = unfinished.restore(model)
        if trained is None:
            with ranks.together(spec, folder, scratch, report):
                trained = fit.train()
            unfinished.keep(trained, model, fit.trainable)
        report({"event": "evaluating"})
        evaluation_started = time.monotonic()
        evaluated = evaluate(
            model, adapter, tokenizer, data, spec, device=fit.device, unfinished=unfinished
        )
        evaluation_s = time.monotonic() - evaluation_started
    except (Diverged, NotFinite) as error:
        record = common.record("diverged", str(error))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        record = common.record("oom", str(error).splitlines()[0] if str(error) else "out of memory")
    else:
        record = _success(common, folder, trained, evaluated, evaluation_s)
        if spec.keep != "none":
            try:
                saved = kept.save(model, tokenizer, record, spec.stem, folder)
            except OSError as error:  # a full disk costs the model, and not the scores
                report({"event": "note", "note": f"{spec.run_id}: the model is not kept: {error}"})
            else:
                record = replace(record, model_folder=saved)

    # 4. the record
    write(record, folder / f"{spec.run_id}.json")
    unfinished.remove()
    return record


def _task(spec: RunSpec) -> TaskConfig:
    """The task of the run. Raises UserError if one of the user's own changed after the run was planned."""
    task = own.of(spec.task, spec.task_file)
    if spec.task_file and own.digest(task) != spec.task_digest:
        raise UserError(f"{spec.task_file}: the file or its data changed after the run was planned")
    return task


def _inputs(spec: RunSpec, adapter: Adapter, source: Source, data: Data, loaded: Loaded) -> Inputs:
    """The model and the data of the run, as the record describes them."""
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


def _identity(spec: RunSpec, inputs: Inputs, source: Source) -> dict[str, Any]:
    """What decides the bytes of the run: a state that was saved under another identity is of no use."""
    return {
        "settings": spec.hash,
        "code": environment.sources(),
        "libraries": environment.environment(source.packages)["packages"],
        "inputs": asdict(inputs),
    }


@dataclass(frozen=True)
class _Common:
    """The parts of a record that are the same for every status."""

    spec: RunSpec
    started: datetime.datetime
    source: Source
    inputs: Inputs
    unfinished: Unfinished

    def record(self, status: Status, error: str | None = None, **results: Any) -> RunRecord:
        """The record of a run that ends now; `results` are further fields of RunRecord."""
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
                # a clock that was set back makes no time negative
                total_s=round(max(0, time.time() - environment.process_started()), 3),
                resumed=bool(self.unfinished.resumed_from),
                resumed_from=self.unfinished.resumed_from,
            ),
            environment=environment.environment(self.source.packages),
            code=environment.code(),
            inputs=self.inputs,
            **results,
        )


def _success(
    common: _Common, folder: Path, trained: Trained, evaluated: Evaluated, evaluation_s: float
) -> RunRecord:
    """The record of a run with scores. Writes its curve and predictions below `folder`.

    `evaluation_s`: seconds that the evaluation took.
    """
    name, trains = common.spec.stem, common.spec.lr is not None
    curve_path = predictions_path = None
    if trains:
        curve_path = f"curves/{name}.csv"
        write_text(folder / curve_path, trained.curve)
    if evaluated.predictions is not None:
        predictions_path = f"predictions/{name}.jsonl"
        predictions.write(folder / predictions_path, evaluated.predictions)
    memory = replace(trained.memory, eval_peak=evaluated.peak)
    # a run without training has no training peak; its peak is that of the evaluation
    if not trains and evaluated.peak is not None:
        memory = replace(memory, peak_allocated=evaluated.peak)
    record = common.record(
        "success",
        scores=evaluated.scores,
        train=trained.train,
        params=trained.params,
        memory=memory,
        evaluations=trained.evaluations,
        curve=curve_path,
        predictions=predictions_path,
    )
    if record.times.resumed:  # an earlier process did a part of it
        return record
    fixed_s = record.times.total_s - evaluation_s - trained.train.seconds
    return replace(record, times=replace(record.times, fixed_s=round(max(0, fixed_s), 3)))


def main() -> int:
    """Run the spec in the file `sys.argv[1]` and write its results to the folder `sys.argv[2]`.

    Returns the exit status. 0: a record was written. 2: bad input. 3: unsupported combination. For 2 and 3
    the last event on stdout has the reason.
    """
    die_at_once()
    keep_freed_memory()
    spec_path, folder = map(Path, sys.argv[1:])
    # stdout holds events only, so what libraries print goes to stderr
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
    end_with(int(os.environ.get(RUNNER, os.getppid())))
    end_together()
    sys.exit(main())
