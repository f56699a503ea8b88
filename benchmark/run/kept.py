"""The trained model of a run, kept as `from_pretrained` loads it (`keep` in a matrix, `--keep-model`).

What PEFT has wrapped is saved as PEFT does it: the adapter alone, with the name of its base model.
"""

import shutil
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmark.console import as_markdown, escape_markdown
from benchmark.errors import Unsupported, UserError
from benchmark.files import build_once, free
from benchmark.records.record import RunRecord
from benchmark.sizes import readable

FOLDER = "models"


def check(model: PreTrainedModel, strategy: str, folder: Path) -> None:
    """Refuse a model, as the strategy has prepared it, that cannot be kept in `folder`.

    Raises Unsupported if `from_pretrained` could not load it again, UserError if the disk has no room for it.
    """
    ours = {
        type(m).__name__ for m in model.modules() if type(m).__module__.startswith("benchmark.")
    }
    ours |= {"parametrizations" for name, _ in model.named_modules() if "parametrizations" in name}
    if ours:
        raise Unsupported(
            f"keep: strategy {strategy} adds layers that from_pretrained does not know "
            f"({', '.join(sorted(ours))}): leave keep out"
        )
    saved = [p for p in model.parameters() if p.requires_grad or not _is_adapter(model)]
    needed = sum(p.nbytes for p in saved)
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    room = shutil.disk_usage(there).free
    if needed > room:
        raise UserError(
            f"{folder / FOLDER}: keep: the model takes {readable(needed)}, and {readable(room)} are free"
        )


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    record: RunRecord,
    stem: str,
    folder: Path,
) -> str:
    """Save model, tokenizer and model card in a new folder below `folder`, whole or not at all.

    Returns the folder's path relative to `folder`. Its name is `stem`, with a number if that is taken. Raises
    OSError if the disk is full.
    """
    adapter = _is_adapter(model)

    def fill(scratch: Path) -> None:
        # PEFT would else ask the Hub for the size of the base model's vocabulary, which never changes here
        options: dict[str, Any] = {"save_embedding_layers": False} if adapter else {}
        model.save_pretrained(str(scratch), **options)
        tokenizer.save_pretrained(str(scratch))
        (scratch / "README.md").write_text(card(record, adapter), encoding="utf-8")

    target = build_once(free(folder / FOLDER / stem), fill)
    return str(target.relative_to(folder))


def card(record: RunRecord, adapter: bool) -> str:
    """The model card of a successful run: what was trained on what, how, and its scores."""
    spec, inputs, scores = record.spec, record.inputs, record.scores
    assert inputs is not None and scores is not None
    library = "peft" if adapter else "transformers"
    header: dict[str, Any] = {"library_name": library, "tags": ["hift-benchmark", spec["strategy"]]}
    if inputs.model_source == "hub":
        header["base_model"] = inputs.model
    stderr = "" if scores.stderr is None else f" (standard error {scores.stderr:.4g})"
    facts = {
        "task": spec["task"],
        f"{scores.metric} ({scores.metric_version})": f"{scores.main:.4g}{stderr}",
        "scored on": f"{scores.n} examples of {scores.split}",
        "trained on": f"{inputs.examples_train} examples",
        "data": f"{inputs.dataset}: {inputs.dataset_source}, revision {inputs.dataset_revision or 'none'}",
        "base model": f"{inputs.model}: {inputs.model_source}, revision {inputs.model_revision or 'none'}",
        "method": f"{spec['label']}: {spec['strategy']}",
        "options": ", ".join(f"{key}: {value}" for key, value in spec["options"].items()) or "none",
        "optimizer": f"{spec['optimizer']}, learning rate {spec['lr']:g}, {spec['schedule']} schedule",
        "steps": f"{record.train.steps if record.train else 0} of {spec['batch_size']} examples",
        "precision": spec["precision"],
        "weights kept": spec["keep"],
        "seed": spec["seed"],
        "run": f"{record.run_id}, settings {record.spec_hash}, finished {record.times.finished}",
        "code": str(record.code.get("git_sha") or "not a checkout"),
    }
    rows = [{"what": what, "value": str(value)} for what, value in facts.items()]
    title = f"{spec['model']} trained on {spec['task']} with {spec['label']}"
    return (
        f"---\n{yaml.safe_dump(header)}---\n\n# {escape_markdown(title)}\n\n{as_markdown(rows)}\n"
        "Written by hift-benchmark from the record of the run.\n"
    )


def _is_adapter(model: PreTrainedModel) -> bool:
    """Whether PEFT has wrapped the model."""
    from peft import PeftModel

    return isinstance(model, PeftModel)
