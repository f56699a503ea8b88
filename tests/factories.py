"""Made-up specs, records, cells and curves for tests; nothing here was ever trained."""

import csv
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.records import predictions
from benchmark.records.record import Inputs, Memory, Params, RunRecord, Scores, Times, Train, write
from benchmark.records.spec import RunSpec
from benchmark.strategies import build
from benchmark.strategies.settings import TrainingSettings
from tasks.metrics import standard_error

CURVE_COLUMNS = (
    *("step", "seconds", "loss", "lr", "group", "trainable_ratio", "tokens", "flops", "step_ms"),
    *("peak_bytes", "host_bytes"),
)


@dataclass(frozen=True)
class MadeUpCell:
    task: str
    model: str
    strategy: str
    label: str
    run_ids: tuple[str, ...]
    search: None = None
    is_baseline: bool = False


def make_spec(**fields: Any) -> RunSpec:
    usual = {
        "matrix": "made_up",
        "task": "glue/sst2",
        "task_version": 1,
        "model": "minilm",
        "strategy": "full",
        "label": fields.get("strategy", "full"),
        "seed": 0,
        "data": "mirror",
        "lr": 5e-5,
        "epochs": 3,
    }
    return RunSpec(**(usual | fields))


def make_strategy(spec: RunSpec) -> Any:
    """The spec's strategy, as a run makes it."""
    return build(spec.strategy, TrainingSettings.of(spec), spec.options)


def make_bert(**config: Any) -> Any:
    """A BERT of two blocks with 32 dimensions, for classification; the same weights each time. It has
    positions for 8 tokens and the virtual ones of prompts."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**{**sizes, **layers, **config}))


def make_record(
    spec: RunSpec | None = None, *, score: float = 0.8, peak: int = 100 * 2**20, **overrides: Any
) -> RunRecord:
    """A success record of `spec`; `overrides` replace whole fields of the record."""
    spec = spec or make_spec()
    groups = 1 if spec.strategy == "full" else 8
    record = RunRecord(
        run_id=spec.run_id,
        spec_hash=spec.hash,
        status="success",
        spec=spec.model_dump(),
        times=Times(
            started="2026-01-02T03:04:05+00:00",
            finished="2026-01-02T03:05:05+00:00",
            total_s=60.0,
            fixed_s=6.0,
        ),
        environment={
            "cpu": "made up",
            "device": "cpu",
            "packages": {"torch": "2.13.0", "transformers": "5.0"},
        },
        code={"git_sha": "abc1234", "dirty": False},
        scores=Scores(
            main=score,
            metric="accuracy",
            metric_version="1",
            higher_is_better=True,
            split="validation",
            n=872,
            all={"accuracy": score, "f1": score / 2},
        ),
        train=Train(
            steps=20,
            examples=320,
            tokens=9600,
            seconds=40.0,
            step_ms_median=200.0 / groups,
            step_ms_p90=220.0,
            final_loss=0.4,
            others=0.02,
        ),
        params=Params(
            total=1000,
            trainable_ever=1000,
            trainable_peak_per_step=1000 // groups,
            ratio_peak=1 / groups,
            ratio_mean=0.9 / groups,
            groups=groups,
        ),
        memory=Memory(
            kind="counted_cpu_tensors",
            device="cpu",
            peak_allocated=peak,
            peak_reserved=None,
            parameters=4000,
            gradients=4000,
            optimizer_state=8000,
            master=0,
            host_state=0,
            host_rss_peak=2**30,
            eval_peak=None,
        ),
        inputs=Inputs(
            model=spec.model,
            model_source="package",
            model_revision=None,
            model_fingerprint=f"weights-{spec.model}-{spec.seed}",
            dataset=spec.task,
            dataset_source=spec.data,
            dataset_revision=None,
            dataset_fingerprint=f"rows-{spec.task}-{spec.seed}",
            task_version=1,
            examples_train=2000,
            examples_eval=872,
            examples_truncated=0,
        ),
    )
    return dataclasses.replace(record, **overrides)


def make_failure(spec: RunSpec, status: str, error: str) -> RunRecord:
    return make_record(
        spec,
        status=status,
        error=error,
        scores=None,
        train=None,
        params=None,
        memory=None,
        inputs=None,
    )


def make_cells(specs: list[RunSpec], baseline: str | None = None) -> list[MadeUpCell]:
    """Cells in order of appearance, one run id per seed. `baseline`: the label that the matrix names."""
    runs: dict[tuple[str, str, str, str], list[str]] = {}
    for spec in specs:
        key = (spec.task, spec.model, spec.strategy, spec.label)
        runs.setdefault(key, []).append(spec.run_id)
    return [
        MadeUpCell(*key, run_ids=tuple(ids), is_baseline=key[-1] == baseline)
        for key, ids in runs.items()
    ]


def curve_rows(record: RunRecord, steps: int = 20) -> list[dict[str, Any]]:
    groups = record.params.groups if record.params else 1
    return [
        {
            "step": step,
            "seconds": round(0.5 * (step + 1), 3),
            "loss": 0.7 - 0.3 * step / steps + 0.01 * (record.spec["seed"] % 3),
            "lr": record.spec["lr"] * (1 - step / steps),
            "group": step % groups,
            "tokens": 480,
            "flops": 10**9,
            "trainable_ratio": (1 + step % groups) / groups / (1 if groups == 1 else groups),
            "step_ms": None if step == 0 else 200.0 + step,
            "peak_bytes": (90 + step) * 2**20 if step < 2 else None,
            "host_bytes": 2**20 * min(step, groups - 1),
        }
        for step in range(steps)
    ]


def write_run(folder: Path, record: RunRecord, steps: int = 20) -> RunRecord:
    """Put the record and its curve into `folder` as the runner does; return the record written."""
    record = dataclasses.replace(record, curve=f"{record.run_id}.curve.csv")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / str(record.curve), "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, CURVE_COLUMNS)
        writer.writeheader()
        writer.writerows(curve_rows(record, steps))
    write(record, folder / f"{record.run_id}.json")
    return record


def write_answers(
    folder: Path, record: RunRecord, right: Sequence[bool], references: Sequence[int]
) -> RunRecord:
    """Put the record and predictions of class 0 or 1 into `folder`; return the record, scored by accuracy."""
    scores = [float(is_right) for is_right in right]
    kept = predictions.Predictions(
        ids=[f"{number:016x}" for number in range(len(scores))],
        predictions=[r if s else 1 - r for r, s in zip(references, right, strict=True)],
        references=list(references),
        scores=scores,
    )
    name = f"predictions/{record.run_id}.jsonl"
    predictions.write(folder / name, kept)
    accuracy = sum(scores) / len(scores)
    assert record.scores is not None
    scored = dataclasses.replace(
        record.scores,
        main=accuracy,
        metric_version="accuracy@1",
        n=len(scores),
        all={"accuracy": accuracy},
        stderr=standard_error(scores),
    )
    record = dataclasses.replace(record, scores=scored, predictions=name)
    write(record, folder / f"{record.run_id}.json")
    return record
