"""`hift-bench regress`: run the tiny-model regression and hold it against committed golden values.

Each run goes the whole way, process and record included. On the machine kind that made the golden values
(same torch, same CPU kind) losses must agree to 1e-5 relative and scores exactly; elsewhere kernels round
differently and thirty steps amplify it, so the wider tolerance is said and used.
"""

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import UserError
from benchmark.files import write_text
from benchmark.matrices import matrix, runner
from benchmark.records import record
from benchmark.records.record import RunRecord

MATRIX = Path(__file__).with_name("regression.yaml")
Bars = Callable[[int], AbstractContextManager[runner.Progress]]


@dataclass(frozen=True)
class Tolerance:
    """`loss` is relative, `score` absolute."""

    loss: float
    score: float


SAME, OTHER = Tolerance(1e-5, 0.0), Tolerance(5e-2, 0.1)


@dataclass(frozen=True)
class Drift:
    """One value that moved."""

    run_id: str
    value: str
    golden: float | None
    now: float | None

    def __str__(self) -> str:
        if self.golden is None or self.now is None:
            return f"{self.run_id}: {self.value}: golden {self.golden}, now {self.now}"
        moved = abs(self.now - self.golden) / max(abs(self.golden), 1e-12)
        values = f"golden {self.golden:.8g}, now {self.now:.8g} ({moved:.2g} relative)"
        return f"{self.run_id}: {self.value}: {values}"


def run(golden: Path, *, update: bool, bars: Bars) -> tuple[Tolerance, list[Drift]]:
    """Run the matrix in a scratch folder; the tolerance used and what drifted beyond it.

    `golden` is the folder of golden.json; `update` rewrites it instead of comparing; `bars` shows a number
    of runs as they go. Raises UserError when golden.json is missing or a run failed.
    """
    path = golden / "golden.json"
    if not update and not path.exists():
        raise UserError(f"{path}: no golden values; make them with hift-bench regress --update")
    os.environ["OMP_NUM_THREADS"] = "1"  # one order of summation, whatever the machine's cores
    loaded = matrix.load(MATRIX)
    with tempfile.TemporaryDirectory() as scratch:
        with bars(len(loaded.cells)) as progress:
            runner.run(loaded, Path(scratch), tracker=runner.Untracked(), progress=progress)
        folder = Path(scratch) / loaded.name
        records = record.load_all(folder)
        for found in records:
            if found.status != "success":
                raise UserError(f"{found.run_id}: {found.status}: {found.error}")
        now: dict[str, Any] = {
            "made_on": _kind(records[0]),
            "runs": {r.run_id: _values(r, folder) for r in records},
        }
    if update:
        write_text(path, json.dumps(now, indent=1, sort_keys=True, allow_nan=False) + "\n")
        return SAME, []
    kept = _read(path)
    tolerance = SAME if kept["made_on"] == now["made_on"] else OTHER
    return tolerance, list(compare(kept["runs"], now["runs"], tolerance))


def compare(
    golden: Mapping[str, Mapping[str, Any]],
    now: Mapping[str, Mapping[str, Any]],
    tolerance: Tolerance,
) -> Iterator[Drift]:
    """What moved further than `tolerance` allows, or is on one side only."""
    for run_id in sorted({*golden, *now}):
        old, new = _flat(golden.get(run_id, {})), _flat(now.get(run_id, {}))
        for value in sorted({*old, *new}):
            a, b = old.get(value), new.get(value)
            relative, absolute = (
                (tolerance.loss, 0.0) if value.startswith("loss") else (0.0, tolerance.score)
            )
            if a is None or b is None or not math.isclose(a, b, rel_tol=relative, abs_tol=absolute):
                yield Drift(run_id, value, a, b)


def _values(done: RunRecord, folder: Path) -> dict[str, Any]:
    assert done.curve is not None and done.scores is not None and done.params is not None
    return {
        "losses": record.read_curve(folder / done.curve)["loss"],
        "scores": done.scores.all,
        "params": {
            "trainable_peak_per_step": done.params.trainable_peak_per_step,
            "trainable_ever": done.params.trainable_ever,
        },
    }


def _flat(values: Mapping[str, Any]) -> dict[str, float]:
    flat = {f"loss at step {i}": loss for i, loss in enumerate(values.get("losses", ()), start=1)}
    for kind in ("scores", "params"):
        flat |= {f"{kind}.{key}": float(value) for key, value in values.get(kind, {}).items()}
    return flat


def _kind(done: RunRecord) -> dict[str, str]:
    environment = done.environment
    return {"torch": environment["packages"]["torch"], "cpu_kind": environment["cpu_kind"]}


def _read(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {"made_on": dict(kept["made_on"]), "runs": dict(kept["runs"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: unreadable golden values: {error!r}") from None
