"""The fine-tuning methods, a file each.

A new method needs its file and a line in STRATEGIES. `shared` has what several methods use, and `rules` the
update rules that are not torch's own.
"""

import importlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from benchmark.errors import Unsupported, UserError, first_complaint, nearest
from benchmark.strategies.compatibility import refusal
from benchmark.strategies.settings import TrainingSettings

if TYPE_CHECKING:
    from benchmark.strategies.base import TuningStrategy

STRATEGIES = {
    "adalomo": "benchmark.strategies.adalomo:AdaLomo",
    "adalora": "benchmark.strategies.adalora:Adalora",
    "adam_mini": "benchmark.strategies.adam_mini:AdamMini",
    "apollo": "benchmark.strategies.apollo:Apollo",
    "apollo_mini": "benchmark.strategies.apollo_mini:ApolloMini",
    "badam": "benchmark.strategies.badam:Badam",
    "bitfit": "benchmark.strategies.bitfit:BitFit",
    "compacter": "benchmark.strategies.compacter:Compacter",
    "dept": "benchmark.strategies.dept:Dept",
    "dora": "benchmark.strategies.dora:Dora",
    "freeze_lower": "benchmark.strategies.freeze_lower:FreezeLower",
    "full": "benchmark.strategies.full:Full",
    "galore": "benchmark.strategies.galore:Galore",
    "greentrainer": "benchmark.strategies.greentrainer:Greentrainer",
    "head": "benchmark.strategies.head:Head",
    "hft": "benchmark.strategies.hft:Hft",
    "hift": "benchmark.strategies.hift:Hift",
    "houlsby": "benchmark.strategies.houlsby:Houlsby",
    "ia3": "benchmark.strategies.ia3:Ia3",
    "intrinsic": "benchmark.strategies.intrinsic:Intrinsic",
    "lisa": "benchmark.strategies.lisa:Lisa",
    "lisa_keep": "benchmark.strategies.lisa_keep:LisaKeep",
    "llrd": "benchmark.strategies.llrd:Llrd",
    "ln_tuning": "benchmark.strategies.ln_tuning:LnTuning",
    "lofit": "benchmark.strategies.lofit:Lofit",
    "lomo": "benchmark.strategies.lomo:Lomo",
    "lora": "benchmark.strategies.lora:Lora",
    "lt_sft": "benchmark.strategies.lt_sft:LtSft",
    "mam": "benchmark.strategies.mam:Mam",
    "mezo": "benchmark.strategies.mezo:Mezo",
    "mft": "benchmark.strategies.mft:Mft",
    "misa": "benchmark.strategies.misa:Misa",
    "muon": "benchmark.strategies.muon:Muon",
    "none": "benchmark.strategies.none:Untrained",
    "oft": "benchmark.strategies.oft:Oft",
    "parallel_adapter": "benchmark.strategies.parallel_adapter:ParallelAdapter",
    "pfeiffer": "benchmark.strategies.pfeiffer:Pfeiffer",
    "pissa": "benchmark.strategies.pissa:Pissa",
    "prefix": "benchmark.strategies.prefix:Prefix",
    "prompt": "benchmark.strategies.prompt:Prompt",
    "ptuning": "benchmark.strategies.ptuning:Ptuning",
    "qlora": "benchmark.strategies.qlora:Qlora",
    "reinit_top": "benchmark.strategies.reinit_top:ReinitTop",
    "rslora": "benchmark.strategies.rslora:Rslora",
    "top_n": "benchmark.strategies.top_n:TopN",
    "vera": "benchmark.strategies.vera:Vera",
}


def strategy_class(name: str) -> "type[TuningStrategy]":
    """The class of the strategy `name`. No torch is imported: a strategy imports it when it prepares a model.

    Raises UserError for an unknown name.
    """
    if name not in STRATEGIES:
        raise UserError(f"unknown strategy {name!r}{nearest(name, STRATEGIES)}")
    module, _, attribute = STRATEGIES[name].partition(":")
    strategy: type[TuningStrategy] = getattr(importlib.import_module(module), attribute)
    return strategy


def options_of(name: str) -> type[BaseModel]:
    """The model of the strategy's own options, which a matrix sets beside the settings of every strategy."""
    return strategy_class(name).Options


def build(
    name: str, settings: TrainingSettings, options: Mapping[str, Any] | None = None
) -> "TuningStrategy":
    """The strategy with its checked `options`. No torch is imported.

    Raises UserError for an unknown name or option, for a missing learning rate, and for a learning rate of a
    strategy that trains nothing; Unsupported for settings that the strategy does not work with.
    """
    kind, checked = strategy_class(name), checked_options(name, options or {})
    refused = refusal(name, kind, settings, checked)
    if refused:
        raise Unsupported(refused)
    if kind.trains == (settings.lr is None):
        reason = "needs a learning rate" if kind.trains else "trains nothing, so it has none"
        raise UserError(f"lr: strategy {name} {reason}")
    return kind(settings, checked)


def checked_options(name: str, options: Mapping[str, Any]) -> BaseModel:
    """The strategy's options, defaults included. Raises UserError for an unknown key and an invalid value."""
    kind = options_of(name)
    for option in options:
        if option not in kind.model_fields:
            raise UserError(
                f"strategy {name} has no option {option}{nearest(option, kind.model_fields)}"
            )
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        place = error.errors()[0]["loc"]
        if not place:  # options that do not go together
            raise UserError(f"strategy {name}: {first_complaint(error, ())}") from None
        message = first_complaint(error, kind.model_fields).removeprefix(f"{place[0]}: ")
        raise UserError(f"strategy {name}: {place[0]}: {message}") from None


def share_options(names: Iterable[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Strategy name -> those of `options` that the strategy has.

    Raises UserError for an unknown strategy, and for an option that none of them has.
    """
    valid = {name: options_of(name).model_fields for name in names}
    for option in options:
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
        name: {option: value for option, value in options.items() if option in fields}
        for name, fields in valid.items()
    }
