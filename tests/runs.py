"""Stand-ins around the runner: who watches it, processes that train nothing, and whether they have ended."""

import dataclasses
import json
import sys
import time
from pathlib import Path

import psutil
from factories import make_record

from benchmark.records import record
from benchmark.records.spec import RunSpec

USUAL = """\
defaults: {model: tiny-bert, data: twin, max_steps: 2, lr: 1.0e-3}
tasks: [glue/sst2]
strategies: {full: {}, hift: {order: random}}
"""
TWO_CELLS = """
defaults: {model: tiny-bert, data: twin, max_steps: 40, train_examples: 64, eval_examples: 20, max_length: 16}
tasks: [glue/sst2]
strategies: {full: {lr: 1.0e-3, batch_size: 4}, head: {lr: 1.0e-3, max_steps: 2}}
"""


class Watch:
    """A Progress and a Tracker that note what they are told; `on_step` is called with each row."""

    filled, logged = True, 0

    def __init__(self, on_step=lambda row: None):
        self.told, self.on_step = [], on_step

    def started(self, spec, steps):
        self.told.append(("started", spec.run_id, steps))

    def noted(self, note, spec=None):
        self.told.append(("noted", note))

    def stepped(self, spec, row):
        self.told.append(("stepped", row["step"]))
        self.on_step(row)

    def finished(self, spec, done):
        self.told.append(("finished", spec.run_id, done.status))

    def dropped(self, spec):
        self.told.append(("dropped", spec.run_id))

    def start(self, spec):
        self.told.append(("start", spec.run_id))

    def steps(self, spec, rows):
        self.told += [("steps", row["step"]) for row in rows]

    def finish(self, done, folder):
        self.told.append(("finish", done.run_id, done.status))

    def fill(self, records, progress=None):
        self.told += [("fill", record.run_id) for record, folder in records]

    def report(self, out):
        self.told.append(("report", str(out)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def of(self, kind):
        return [entry[1:] for entry in self.told if entry[0] == kind]


def pretend(score=lambda spec: 0.5, status=lambda spec: "success"):
    """The main() of a run's process that trains nothing and writes the record it would have."""

    def main():
        spec_path, folder = map(Path, sys.argv[1:])
        spec = RunSpec.model_validate_json(spec_path.read_text())
        print(json.dumps({"event": "step", "step": 1, "total": 1, "loss": 0.5}))
        made = make_record(spec, score=score(spec))
        if status(spec) != "success":
            made = dataclasses.replace(made, status=status(spec), scores=None, error="made up")
        record.write(made, folder / f"{spec.run_id}.json")
        return 0

    return main


def say(event, code):
    def main():
        print(json.dumps(event))
        return code

    return main


FAILING = say({"event": "refused", "error": "made up"}, 2)


def gone(pid):
    """Whether the process ends within seconds."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def snapshot():
    """Every file below the current folder; a lock that was held is no content."""
    return {p: p.read_bytes() for p in Path().rglob("*") if p.is_file() and p.name != "lock"}
