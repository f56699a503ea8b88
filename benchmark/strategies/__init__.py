"""The fine-tuning methods, a file each.

To add one: its file, and its line in STRATEGIES."""

import importlib
from typing import TYPE_CHECKING

from pydantic import BaseModel

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
    """The class behind a name of STRATEGIES; its file imports torch only when it prepares a model."""
    module, _, attribute = STRATEGIES[name].partition(":")
    found: type[TuningStrategy] = getattr(importlib.import_module(module), attribute)
    return found


def options_of(name: str) -> type[BaseModel]:
    """The strategy's own settings, which a matrix gives beside the common ones."""
    return strategy_class(name).Options
