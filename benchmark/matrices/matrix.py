"""A matrix: YAML -> cells -> RunSpecs. The file says what varies; everything else is equal across cells.

Settings are merged deeply, later layers over earlier ones: defaults, task, model, strategy, cell. An unknown
key is an error that names the file, the key and the nearest valid key.
"""

import copy
import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmark.errors import UserError, first_complaint, nearest
from benchmark.matrices import axes, names, own_tasks
from benchmark.matrices.axes import AXES
from benchmark.matrices.own_tasks import Asked
from benchmark.matrices.search import Search
from benchmark.records.spec import TRAINING, RunSpec
from benchmark.strategies import STRATEGIES, options_of, strategy_class

SETTINGS = frozenset(RunSpec.model_fields) - {
    *("matrix", "task", "task_version", "task_file", "task_digest", "model"),
    *("strategy", "label", "options", "seed", "score_on"),
}
KEYS = ("name", "description", "defaults", *AXES, "baseline", "exclude", "cells")


@dataclass(frozen=True)
class Cell:
    """One task × model × strategy of a matrix, with one run per seed.

    `search` is None if the matrix gives the learning rate (`settings["lr"]`) or the strategy trains nothing.
    `is_baseline`: reports compare the others of its task and model with it, because the matrix says so.
    """

    task: str
    model: str
    strategy: str
    label: str
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    search: Search | None
    is_baseline: bool = False
    _specs: dict[str, RunSpec] = field(default_factory=dict, init=False, repr=False, compare=False)

    @functools.cached_property
    def run_ids(self) -> tuple[str, ...]:
        """One per seed. They do not depend on the learning rate that a search chooses."""
        rate = self.search.lr[0] if self.search else self.settings.get("lr")
        return tuple(self._spec(seed=seed, lr=rate).run_id for seed in self.seeds)

    def trials(self, rates: Sequence[float] = ()) -> list[RunSpec]:
        """The trials at `rates`, or at the rates of the grid; an empty list without a search.

        A trial is scored once, at its end.
        """
        if self.search is None:
            return []
        fields = {
            "score_on": "dev_loss" if self.search.by == "loss" else "dev",
            "dev_examples": self.search.examples,
            "eval_every": None,
            "keep": "none",
        }
        return [
            self._spec(seed=seed, lr=lr, **fields)
            for lr in rates or self.search.lr
            for seed in self.search.seeds
        ]

    def runs(self, lr: float | None = None) -> list[RunSpec]:
        """One RunSpec per seed. `lr` is the rate that the search chose; without a search it is not read."""
        rate = self.settings.get("lr") if self.search is None else lr
        return [self._spec(seed=seed, lr=rate) for seed in self.seeds]

    def _spec(self, **values: Any) -> RunSpec:
        """The spec with these `values`. Checking one takes most of its time, so it is made once."""
        key = repr(sorted(values.items()))
        if key not in self._specs:
            self._specs[key] = RunSpec(**{**self.settings, **values})
        return self._specs[key]


@dataclass(frozen=True)
class Matrix:
    """A named experiment: its cells in the order they run."""

    name: str
    description: str
    path: Path
    cells: tuple[Cell, ...]

    def keeping(self) -> "Matrix":
        """The same runs, with each trained model kept: the best where `select` chooses one, or the last."""

        def kept(cell: Cell) -> Cell:
            last = cell.settings.get("select", "last") == "last"
            return replace(cell, settings={**cell.settings, "keep": "last" if last else "best"})

        trains = (strategy_class(cell.strategy).trains for cell in self.cells)
        cells = (kept(cell) if of else cell for cell, of in zip(self.cells, trains, strict=True))
        return replace(self, cells=tuple(cells))


def load(path: Path) -> Matrix:
    """Read and expand a matrix file. Raises UserError naming the file, the key and the nearest name.

    A bare name, such as demo, is that of a matrix of this package, unless a file of that name is there.
    """
    shipped = {file.stem: file for file in Path(__file__).parent.glob("*.yaml")}
    if str(path) in shipped and not path.exists():
        path = shipped[str(path)]
    data = axes.read(path)
    for key in data:
        if key not in KEYS:
            raise UserError(f"{path}: {key}: unknown key{nearest(key, KEYS)}")
    name = names.of_matrix(data.get("name", path.stem), path)
    defaults = axes.table(data.get("defaults", {}), path, "defaults")
    of_axis = {axis: axes.axis(data.get(axis), path, axis) for axis in ("tasks", "strategies")}
    of_axis["models"] = axes.models(data, defaults, path)
    for label in of_axis["strategies"]:
        names.check_label(label, path)
    baseline = axes.baseline(data.get("baseline"), of_axis["strategies"], path)
    asked = own_tasks.asked(of_axis["tasks"], path)
    paired = {task: axes.models_of(task, of_axis, path) for task in of_axis["tasks"]}
    of_axis["tasks"] = {
        task: {key: value for key, value in settings.items() if key != "models"}
        for task, settings in of_axis["tasks"].items()
    }
    excluded = axes.selectors(data.get("exclude", []), path, "exclude", of_axis)
    overrides = axes.selectors(data.get("cells", []), path, "cells", of_axis)

    cells = []
    for task, model, label in itertools.product(*(of_axis[axis] for axis in AXES)):
        place = {"task": task, "model": model, "strategy": label}
        if model not in paired[task] or any(axes.selects(entry, place) for entry in excluded):
            continue
        layers = [("defaults", defaults)]
        layers += [
            (f"{a}.{k}", of_axis[a][k]) for a, k in zip(AXES, (task, model, label), strict=True)
        ]
        layers += [
            (f"cells[{i}]", {k: v for k, v in entry.items() if k not in place})
            for i, entry in enumerate(overrides)
            if axes.selects(entry, place)
        ]
        settings, origin = _merged(layers, path)
        cell = _cell(path, name, asked[task], model, label, settings, origin)
        cells.append(replace(cell, is_baseline=label == baseline))
    if not cells:
        raise UserError(f"{path}: exclude: leaves no cell to run")
    names.check_run_ids([run_id for cell in cells for run_id in cell.run_ids], path)
    return Matrix(name, str(data.get("description", "")).strip(), path, tuple(cells))


def _merged(
    layers: Sequence[tuple[str, Mapping[str, Any]]], path: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings of one cell and the place of each key, from layers and their places in the file."""
    settings: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for where, layer in layers:
        if "search" in layer:
            if "lr" in layer:
                raise UserError(f"{path}: {where}: gives lr and search: choose one")
            settings.pop("lr", None)  # the later of lr and search counts
        _merge(settings, layer)
        origin |= {key: f"{where}.{key}" for key in layer}
    return settings, origin


def _cell(
    path: Path,
    matrix: str,
    task: Asked,
    model: str,
    label: str,
    settings: dict[str, Any],
    origin: dict[str, str],
) -> Cell:
    """Check the merged `settings` of one cell. `origin` has the place in the file of each key."""

    def fail(key: str, message: str) -> UserError:
        where = origin.get(key, f"strategies.{label}.{key}")
        return UserError(f"{path}: {where}: {message.removeprefix(f'{key}: ')}")

    strategy = settings.pop("strategy", label)
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        known = f"unknown strategy {strategy!r}{nearest(strategy, STRATEGIES)}"
        raise UserError(f"{path}: strategies.{label}: {known}")
    options_type = options_of(strategy)
    trains = strategy_class(strategy).trains
    if not trains:  # defaults for training are meant for the other strategies of the matrix
        for key in (TRAINING | {"search"}) & settings.keys():
            if origin[key].startswith("strategies."):
                raise fail(key, f"strategy {strategy} trains nothing and has no use for it")
            del settings[key]
    seeds = settings.pop("seeds", [0])
    if not isinstance(seeds, list) or not seeds or len(set(map(str, seeds))) != len(seeds):
        raise fail("seeds", f"{seeds!r} is not a list of different seeds")
    search = settings.pop("search", None)
    try:
        searched = search is not None and "lr" not in settings
        search = Search.model_validate(search) if searched else None
    except ValidationError as error:
        raise fail("search", first_complaint(error, Search.model_fields)) from None
    options = {key: settings.pop(key) for key in list(settings) if key in options_type.model_fields}
    for key in settings:
        if key not in SETTINGS:
            valid = {*SETTINGS, *options_type.model_fields, "seeds", "search", "strategy"}
            raise fail(key, f"unknown key{nearest(key, valid)}")
    if trains and search is None and "lr" not in settings:
        raise fail("lr", "missing: give lr, or search: {lr: [...], examples: N}")
    try:
        options = options_type.model_validate(options).model_dump(exclude_defaults=True)
    except ValidationError as error:
        raise fail(
            str(error.errors()[0]["loc"][0]), first_complaint(error, options_type.model_fields)
        ) from None
    try:
        source = task.source(settings.get("data"))
    except UserError as error:
        raise fail("data", str(error)) from None
    fixed = {
        **settings,
        **source,
        **task.fields,
        **{"matrix": matrix, "model": model, "strategy": strategy, "label": label},
        "options": options,
    }
    cell = Cell(task.name, model, strategy, label, tuple(seeds), fixed, search)
    try:
        specs = cell.trials() + cell.runs(search.lr[0] if search else None)
    except ValidationError as error:
        message = first_complaint(error, RunSpec.model_fields)
        named = message.partition(":")[0]  # a contradiction between keys has no place of its own
        key = str((error.errors()[0]["loc"] or (named if named in SETTINGS else "epochs",))[0])
        raise fail("seeds" if key == "seed" else key, message) from None
    numbers = tuple(spec.seed for spec in specs[-len(seeds) :])
    return cell if numbers == cell.seeds else replace(cell, seeds=numbers)


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Update `base` by `over` in place, table by table."""
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = copy.deepcopy(value)
