"""What a model can do, as its files say it: its heads and its positions. No weights are read, and no torch.

`hift-bench plan` and a run refuse the same combinations by `check`. A plan has the facts from the files
(`of_folder`), a run from the configuration and the tokenizer as transformers loads them.
"""

import ast
import functools
import importlib.util
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import Unsupported, UserError
from benchmark.files import stamp
from benchmark.models import headers
from benchmark.models.damaged import DAMAGED, reason

HEADS = {
    "sequence_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "question_answering": "AutoModelForQuestionAnswering",
    "causal_lm": "AutoModelForCausalLM",
    "masked_lm": "AutoModelForMaskedLM",
}
"""Head -> the class of transformers that loads a model with it."""
PRETRAINED_HEADS = ("causal_lm", "masked_lm")
"""Heads that are pretrained. Any other head is initialised at random, unless the checkpoint holds it."""
POSITIONS = ("max_position_embeddings", "n_positions")
"""The keys of a configuration for the number of positions."""


@dataclass(frozen=True)
class Facts:
    """The model `name` of a family (`model_type` of transformers).

    heads: the heads that the family has. held: those whose weights the checkpoint has. positions: the most
    tokens of one input; None if it is not known.
    """

    name: str
    family: str
    heads: frozenset[str]
    held: frozenset[str]
    positions: int | None


def check_devices(devices: int, gpus: int) -> None:
    """Raises UserError for more `devices` than the `gpus` that the run has; a CPU is as many as there are
    processes."""
    if 0 < gpus < devices:
        raise UserError(
            f"devices: {devices} are more than the {gpus} GPUs of the run; each of several --workers has one"
        )


def check_device(precision: str, cuda: bool) -> None:
    """Raises Unsupported for a precision that needs a CUDA device where there is none."""
    if precision == "fp16" and not cuda:
        raise Unsupported(
            "fp16 needs a CUDA device; a CPU trains in fp32, bf16, bf16_weights or mixed_hi"
        )


def check_head(facts: Facts, head: str) -> None:
    """Raises Unsupported where the model's family has no class with `head`."""
    if head not in facts.heads:
        raise Unsupported(
            f"model {facts.name}: its family {facts.family} has no head {head}, which the task needs"
        )


def check(
    facts: Facts, *, task: str, head: str, strategy: str, trains: bool, max_length: int, added: int
) -> None:
    """Raises Unsupported where the model cannot have the task's `head`, or has none to evaluate untrained.

    Raises UserError where `max_length` and the `added` positions of the strategy are more than there are.
    """
    check_head(facts, head)
    if not trains and head not in (*PRETRAINED_HEADS, *facts.held):
        raise Unsupported(
            f"strategy {strategy}: {task} needs a head {head}, which would be new and random on "
            f"{facts.name}: train it, or name a checkpoint that holds one"
        )
    if facts.positions is not None and max_length + added > facts.positions:
        length = f"{max_length} and {added} of the strategy are" if added else f"{max_length} is"
        raise UserError(f"max_length: {length} more than the positions of {facts.name}")


def of_folder(name: str, folder: Path) -> Facts:
    """The facts of the checkpoint in `folder`.

    Raises UserError for a configuration that cannot be read, and for weights that are cut short.
    """
    return _of_folder(name, folder, stamp(folder))


@functools.lru_cache
def _of_folder(name: str, folder: Path, files: object) -> Facts:
    """`of_folder` as long as the `files` are these: a plan asks for each of its runs."""
    try:
        config = _read(folder / "config.json")
        limits = [config.get(key) for key in POSITIONS]
        if (folder / "tokenizer_config.json").is_file():
            limits.append(_read(folder / "tokenizer_config.json").get("model_max_length"))
        for weights in sorted(folder.glob("*.safetensors")):
            headers.read(weights)
    except DAMAGED as error:
        raise UserError(f"model {name}: cannot be loaded: {reason(error)}") from None
    known = [limit for limit in limits if isinstance(limit, int)]
    architectures = config.get("architectures") or ()
    return facts(name, str(config.get("model_type")), architectures, min(known, default=None))


def facts(name: str, family: str, architectures: Collection[str], positions: int | None) -> Facts:
    """The facts of a model by its family and the classes that its configuration names.

    Encoders such as BERT have a causal class in transformers too, but their attention is bidirectional, so
    they do not have the head `causal_lm`.
    """
    classes = {
        head: of_families[family]
        for head, of_families in _classes().items()
        if family in of_families
    }
    heads = {*classes} - ({"causal_lm"} if "masked_lm" in classes else set())
    held = {head for head, names in classes.items() if {*names} & {*architectures}}
    return Facts(name, family, frozenset(heads), frozenset(held), positions)


@functools.cache
def _classes() -> dict[str, dict[str, tuple[str, ...]]]:
    """Head -> family -> its classes, from the source of transformers, whose import takes torch."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None and spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "models" / "auto" / "modeling_auto.py"
    tables = {f"MODEL_FOR_{head.upper()}_MAPPING_NAMES": head for head in HEADS}
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            head = tables.get(node.targets[0].id)
            if head is not None and isinstance(node.value, ast.Call):
                families = dict(ast.literal_eval(node.value.args[0]))
                found[head] = {
                    k: (v,) if isinstance(v, str) else tuple(v) for k, v in families.items()
                }
    return found


def _read(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return values
