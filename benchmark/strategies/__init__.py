"""The fine-tuning methods, a file each.

To add one: its file, and its line in STRATEGIES."""

import importlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from benchmark.errors import Unsupported, UserError, first_complaint, nearest
from benchmark.strategies.settings import TrainingSettings

if TYPE_CHECKING:
    from benchmark.strategies.base import TuningStrategy

STRATEGIES = {
    "full": "benchmark.strategies.full:Full",
    "head": "benchmark.strategies.head:Head",
    "hift": "benchmark.strategies.hift:Hift",
    "lora": "benchmark.strategies.lora:Lora",
    "none": "benchmark.strategies.none:Untrained",
}


def strategy_class(name: str) -> "type[TuningStrategy]":
    """The class behind a name of STRATEGIES; its file imports torch only when it prepares a model.
    Raises UserError for an unknown name."""
    if name not in STRATEGIES:
        raise UserError(f"unknown strategy {name!r}{nearest(name, STRATEGIES)}")
    module, _, attribute = STRATEGIES[name].partition(":")
    found: type[TuningStrategy] = getattr(importlib.import_module(module), attribute)
    return found


def options_of(name: str) -> type[BaseModel]:
    """The strategy's own settings, which a matrix gives beside the common ones."""
    return strategy_class(name).Options


def build(
    name: str, settings: TrainingSettings, options: Mapping[str, Any] | None = None
) -> "TuningStrategy":
    """The strategy with its checked `options`; no torch is imported.

    Raises UserError for an unknown name or option and for a learning rate where nothing trains, or none where
    something does; Unsupported for a precision that the method has not.
    """
    kind = strategy_class(name)
    if settings.precision not in kind.precisions:
        raise Unsupported(
            f"strategy {name} has no precision {settings.precision}, only {', '.join(kind.precisions)}"
        )
    if kind.trains == (settings.lr is None):
        says = "trains, and needs one" if kind.trains else "trains nothing, and takes none"
        raise UserError(f"lr: strategy {name} {says}")
    return kind(settings, checked_options(name, options or {}))


def checked_options(name: str, options: Mapping[str, Any]) -> BaseModel:
    """The strategy's options with their defaults. Raises UserError for a key or value that is not valid."""
    kind = options_of(name)
    for option in options:
        if option not in kind.model_fields:
            raise UserError(
                f"strategy {name} has no option {option}{nearest(option, kind.model_fields)}"
            )
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        option = str(error.errors()[0]["loc"][0])
        said = first_complaint(error, kind.model_fields).removeprefix(f"{option}: ")
        raise UserError(f"strategy {name}: {option}: {said}") from None


def share_options(names: Iterable[str], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For each strategy those of the `given` options that it has.

    Raises UserError for an unknown strategy, and for an option that none of them has.
    """
    valid = {name: options_of(name).model_fields for name in names}
    for option in given:
        if not any(option in fields for fields in valid.values()):
            known = {field for fields in valid.values() for field in fields}
            which = (
                f"strategy {next(iter(valid))}"
                if len(valid) == 1
                else f"none of {', '.join(valid)}"
            )
            verb = "has no" if len(valid) == 1 else "has an"
            raise UserError(f"{which} {verb} option {option}{nearest(option, known)}")
    return {
        name: {option: value for option, value in given.items() if option in fields}
        for name, fields in valid.items()
    }
