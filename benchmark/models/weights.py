"""Refuses a checkpoint that lacks weights, other than those of a new head.

transformers initialises missing weights at random and goes on.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def initialised(name: str, model: "PreTrainedModel", loading: Mapping[str, Any]) -> list[str]:
    """The names, sorted, of the weights that were initialised at random because the checkpoint lacks them.

    `loading` is the loading info that from_pretrained returns (`output_loading_info`). The head's weights may
    be missing where the checkpoint is of another class, and so may the pooler's, which some classes do not
    save. The head may have another shape (another number of labels). Raises UserError, which names the model
    by `name`, for any other weight that is missing or has another shape.
    """
    shapes = {key: (stored, expected) for key, stored, expected in loading["mismatched_keys"]}
    unique, every = (
        {key for key, _ in model.named_parameters(remove_duplicate=once)} for once in (True, False)
    )
    missing = set(loading["missing_keys"]) - (every - unique)  # one name for tied weights
    same_class = type(model).__name__ in (model.config.architectures or ())
    lost = sorted(key for key in missing if same_class or not _is_new(key, model, pooler=True))
    misshapen = sorted(key for key in shapes if not _is_new(key, model))
    if lost:
        raise UserError(
            f"model {name}: the checkpoint lacks {_some(lost, 'that must be in it')}"
            f"{_closest(lost[0], loading['unexpected_keys'])}"
        )
    if misshapen:
        stored, expected = (" × ".join(map(str, shape)) for shape in shapes[misshapen[0]])
        raise UserError(
            f"model {name}: the checkpoint has {_some(misshapen, 'of another shape than config.json says')} "
            f"(the first is {stored}, not {expected})"
        )
    return sorted(missing | set(shapes))


def _is_new(key: str, model: "PreTrainedModel", pooler: bool = False) -> bool:
    """Whether the weight `key` belongs to the head (lies outside the base model), or with `pooler` to the
    pooler."""
    base = next(path for path, module in model.named_modules() if module is model.base_model)
    if not base:
        return False  # the model has no head
    inside = key.startswith(f"{base}.")
    return not inside or (pooler and key.startswith(f"{base}.pooler."))


def _some(keys: Sequence[str], which: str, shown: int = 3) -> str:
    """The number of `keys`, and the first few of them."""
    more = ", …" if len(keys) > shown else ""
    return f"{len(keys)} weight{'s' * (len(keys) > 1)} {which}: {', '.join(keys[:shown])}{more}"


def _closest(key: str, unexpected: Collection[str]) -> str:
    """The name in the checkpoint that is most similar to the missing `key`."""
    near = difflib.get_close_matches(key, sorted(unexpected), n=1, cutoff=0)
    return f"; it has {near[0]}" if near else ""
