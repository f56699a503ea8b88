"""How long a matrix will take: the pace of each cell, from records of this machine or a few steps of it.

Trials and runs of a cell are timed apart: a trial may be scored by its loss, where the run generates text.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmark.matrices import planning, runner
from benchmark.matrices.forecast import Place, first_spec, place
from benchmark.matrices.matrix import Cell, Matrix
from benchmark.matrices.planning import Planned
from benchmark.matrices.tally import duration
from benchmark.records import environment, record
from benchmark.records.record import RunRecord
from benchmark.records.spec import RunSpec

STEPS, EXAMPLES = 12, 16
"""The training steps and the examples of a calibration."""

_MACHINE = ("machine", "cpu", "cores", "accelerators")
"""What machines that are alike have in common, of a record's environment."""

Kind = tuple[Place, bool]
"""A cell, and whether its trials are meant."""
Bars = Callable[[int], AbstractContextManager[runner.Progress]]


@dataclass(frozen=True)
class Pace:
    """Seconds of a process outside training and scoring, of an optimizer step, and of an example scored.

    Evaluations during training count as scoring, so runs of one kind that were recorded have them, and a
    calibration has none.
    """

    fixed_s: float
    step_s: float
    example_s: float


@dataclass(frozen=True)
class Expected:
    """The seconds of the runs that are left and have a pace, one after the other; `unknown` have none."""

    seconds: float
    known: int
    unknown: int

    def __str__(self) -> str:
        """about 5.2 h, one run at a time; 12 more runs were not timed on this machine"""
        parts = [f"about {duration(self.seconds)}, one run at a time"] if self.known else []
        if self.unknown:
            more = "more runs" if self.known else "runs"
            parts.append(f"{self.unknown} {more} were not timed on this machine")
        return "; ".join(parts)


def expected(planned: Iterable[Planned], paces: Mapping[Kind, Pace]) -> Expected:
    """What the runs to do will take."""
    seconds = [_seconds(p, paces.get(_kind(p))) for p in planned if p.to_do]
    known = [each for each in seconds if each is not None]
    return Expected(sum(known), len(known), len(seconds) - len(known))


def recorded(planned: Iterable[Planned]) -> dict[Kind, Pace]:
    """The pace of each kind of run that was done on a machine like this one: the median of its records."""
    here = environment.machine()
    paces: dict[Kind, list[Pace]] = {}
    for p in planned:
        if p.state == "done" and p.last is not None:
            alike = all(p.last.environment.get(key) == here[key] for key in _MACHINE)
            if alike and (pace := _pace(p.last)):
                paces.setdefault(_kind(p), []).append(pace)
    return {kind: _median(each) for kind, each in paces.items()}


def calibrated(
    planned: Iterable[Planned], known: Mapping[Kind, Pace], bars: Bars
) -> dict[Kind, Pace]:
    """The pace of each kind of run to do that is not `known`: STEPS steps, and EXAMPLES examples scored.

    The runs leave nothing behind. A kind whose run fails has no pace. bars: shows a number of runs.
    """
    first = {_kind(p): p for p in reversed([p for p in planned if p.to_do])}
    specs = {kind: _short(first_spec(p)) for kind, p in first.items() if kind not in known}
    if not specs:
        return {}
    cells = tuple(map(_cell, specs.values()))
    with tempfile.TemporaryDirectory() as scratch:
        with bars(len(cells)) as progress:
            short = Matrix("calibration", "", Path("calibration"), cells)
            runner.run(short, Path(scratch), tracker=runner.Untracked(), progress=progress)
        paths = {k: planning.path_of(s, Path(scratch)) for k, s in specs.items()}
        ended = {kind: record.load(path) for kind, path in paths.items() if path.exists()}
    return {kind: pace for kind, done in ended.items() if (pace := _pace(done))}


def _kind(planned: Planned) -> Kind:
    return place(planned), planned.trial


def _pace(done: RunRecord) -> Pace | None:
    """None for a run that gave no scores, and for one that was resumed, whose times are not whole."""
    train, scores, fixed = done.train, done.scores, done.times.fixed_s
    if train is None or scores is None or fixed is None:
        return None
    scoring = max(done.times.total_s - train.seconds - fixed, 0.0)
    return Pace(fixed, train.seconds / max(train.steps, 1), scoring / max(scores.n, 1))


def _median(paces: list[Pace]) -> Pace:
    parts = zip(*((p.fixed_s, p.step_s, p.example_s) for p in paces), strict=True)
    return Pace(*map(statistics.median, parts))


def _seconds(planned: Planned, pace: Pace | None) -> float | None:
    if pace is None:
        return None
    spec = first_spec(planned)
    steps, examples = planning.predicted_steps(spec), _examples(spec)
    return pace.fixed_s + pace.step_s * steps + pace.example_s * examples


def _examples(spec: RunSpec) -> int:
    """How many examples the run scores."""
    if spec.is_trial:
        return spec.dev_examples
    size = planning.rows_of(spec, "eval")
    return min(spec.eval_examples or size, size or spec.eval_examples or 0)


def _short(spec: RunSpec) -> RunSpec:
    """The same run with few steps, scored on few examples."""
    scored = "dev_examples" if spec.is_trial else "eval_examples"
    few = {scored: min(EXAMPLES, getattr(spec, scored) or EXAMPLES), "matrix": "calibration"}
    if spec.lr is not None:
        few |= {"max_steps": STEPS, "epochs": None, "eval_every": None}
        few |= {"select": "last", "keep": "none", "checkpoint_every": "never"}
    return spec.model_copy(update=few)


def _cell(spec: RunSpec) -> Cell:
    """The cell of this run alone."""
    settings = spec.model_dump(exclude={"seed"})
    return Cell(spec.task, spec.model, spec.strategy, spec.label, (spec.seed,), settings, None)
