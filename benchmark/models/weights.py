"""Which of a model's weights its checkpoint gave: all but those of a new head, or the model is refused.

transformers fills what a checkpoint does not hold with random numbers, and goes on.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def initialised(name: str, model: "PreTrainedModel", loading: Mapping[str, Any]) -> list[str]:
    """The weights of the model called `name` that are new and random, in alphabetical order.

    `loading` is what from_pretrained gives for `output_loading_info`. A checkpoint of another class may lack
    the head, and the pooler, which some classes are saved without; one of any class may have the head for
    other labels. Raises UserError for any other weight that is missing or has another shape.
    """
    shapes = {key: (there, here) for key, there, here in loading["mismatched_keys"]}
    first, every = (
        {key for key, _ in model.named_parameters(remove_duplicate=once)} for once in (True, False)
    )
    missing = set(loading["missing_keys"]) - (every - first)  # one name of what is tied
    same_class = type(model).__name__ in (model.config.architectures or ())
    lost = sorted(key for key in missing if same_class or not _is_new(key, model, pooler=True))
    strange = sorted(key for key in shapes if not _is_new(key, model))
    if lost:
        raise UserError(
            f"model {name}: the checkpoint lacks {_some(lost, 'that a new head does not explain')}"
            f"{_there_is(lost[0], loading['unexpected_keys'])}"
        )
    if strange:
        there, here = (" × ".join(map(str, shape)) for shape in shapes[strange[0]])
        raise UserError(
            f"model {name}: the checkpoint has {_some(strange, 'of another shape than config.json says')} "
            f"(the first is {there}, not {here})"
        )
    return sorted(missing | set(shapes))


def _is_new(key: str, model: "PreTrainedModel", pooler: bool = False) -> bool:
    """Whether the weight is outside the base model, or with `pooler` one of its pooler."""
    base = next(path for path, module in model.named_modules() if module is model.base_model)
    if not base:
        return False  # all of the model is its base
    inside = key.startswith(f"{base}.")
    return not inside or (pooler and key.startswith(f"{base}.pooler."))


def _some(keys: Sequence[str], which: str, shown: int = 3) -> str:
    more = ", …" if len(keys) > shown else ""
    return f"{len(keys)} weight{'s' * (len(keys) > 1)} {which}: {', '.join(keys[:shown])}{more}"


def _there_is(key: str, unexpected: Collection[str]) -> str:
    """The name in the checkpoint that is nearest to the one that is missing."""
    near = difflib.get_close_matches(key, sorted(unexpected), n=1, cutoff=0)
    return f"; it has {near[0]}" if near else ""
