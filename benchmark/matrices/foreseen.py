"""What a run would refuse, found before it starts: from its spec and from files, without torch.

What needs the model itself is found by the run, such as a rank larger than a matrix.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tasks.base
from benchmark.cache import cache_folder
from benchmark.data import footers
from benchmark.data.settings import DataSettings
from benchmark.errors import Unsupported, UserError
from benchmark.models import facts, layers, registry
from benchmark.records import environment
from benchmark.records.spec import RunSpec
from benchmark.strategies import build, checked_options, compatibility, strategy_class
from benchmark.strategies.settings import TrainingSettings
from benchmark.twin import models as twins
from tasks import own


@dataclass(frozen=True)
class Fault:
    """Why a run cannot be made. status: `unsupported` for what cannot work, `refused` for bad input, `oom`
    for what is too large for the machine."""

    status: Literal["unsupported", "refused", "oom"]
    reason: str


def refusal(spec: RunSpec) -> str | None:
    """Why the strategy of the spec does not work with its settings; None if it does. No torch is imported."""
    settings, options = TrainingSettings.of(spec), checked_options(spec.strategy, spec.options)
    return compatibility.refusal(spec.strategy, strategy_class(spec.strategy), settings, options)


def fault(spec: RunSpec) -> Fault | None:
    """What is wrong with the run; None if nothing can be seen. Nothing is built or downloaded for it."""
    try:
        _check(spec)
    except Unsupported as error:
        return Fault("unsupported", str(error))
    except (UserError, tasks.base.TaskError) as error:
        return Fault("refused", str(error))
    return None


def _check(spec: RunSpec) -> None:
    task = own.of(spec.task, spec.task_file)
    strategy = build(spec.strategy, TrainingSettings.of(spec), spec.options)
    facts.check_device(spec.precision, bool(environment.accelerators()))
    folder = _folder(spec)
    if folder is not None:
        facts.check(
            facts.of_folder(spec.model, folder),
            task=spec.task,
            head=tasks.base.HEADS[task.adapter],
            strategy=spec.strategy,
            trains=strategy.trains,
            max_length=spec.max_length,
            added=strategy.added_positions,
        )
        of_folder = layers.of_folder(spec.model, folder)
        if of_folder is not None:
            strategy.check_layers(of_folder)
    footers.check(
        task,
        DataSettings(
            data=spec.data,
            seed=spec.seed,
            train_examples=spec.train_examples,
            dev_examples=spec.dev_examples,
        ),
    )


def _folder(spec: RunSpec) -> Path | None:
    """The folder of the model; None where it is on the Hub, a GGUF file, or a twin that is not built yet."""
    if registry.MODELS.get(spec.model, "").startswith("twin:"):
        folder = cache_folder(f"twin-models-{twins.VERSION}") / spec.model
        return folder if folder.is_dir() else None
    try:
        source = registry.source(spec.model, spec.model_revision)
    except UserError:  # a plan says what is not here, and `runner.check` refuses it
        return None
    folder = Path(source.location)
    return folder if source.kind != "hub" and folder.is_dir() else None
