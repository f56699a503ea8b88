"""What a matrix of thousands of runs costs: how often files are opened, which no machine changes."""

import builtins
import collections
import io
from pathlib import Path

from factories import make_record

from benchmark.matrices import foreseen, matrix
from benchmark.models import facts, layers, registry
from benchmark.records import record

MATRIX = """
defaults: {model: tiny-bert, data: twin, max_steps: 2, seeds: SEEDS}
tasks: [glue/sst2]
strategies: {full: {search: {lr: [1.0e-3, 2.0e-3], examples: 8}}, hift: {lr: 1.0e-3, group_size: 2}}
"""


def count_opened(monkeypatch):
    """How often each file is opened from now on, by its name."""
    counts, opened = collections.Counter(), io.open

    def counting(file, *arguments, **options):
        found = opened(file, *arguments, **options)
        counts[Path(str(file)).name] += 1
        return found

    monkeypatch.setattr(io, "open", counting)
    monkeypatch.setattr(builtins, "open", counting)
    return counts


def test_a_plan_reads_each_record_once_and_what_its_runs_share_once_for_all(
    cli, write, monkeypatch
):
    """A trial is read once more, for the choice of the rate. Half of the runs are still to do, which asks for
    the files of model and data."""
    registry.source("tiny-bert")
    write(MATRIX.replace("SEEDS", "[0, 1, 2, 3, 4, 5, 6, 7]"))
    for cell in matrix.load(Path("m.yaml")).cells:
        for trial in cell.trials():
            record.write(make_record(trial), Path("results/m/search") / f"{trial.run_id}.json")
        for spec in cell.runs(1e-3)[::2]:
            record.write(make_record(spec), Path("results/m") / f"{spec.run_id}.json")
    for cached in (facts._of_folder, layers._of_folder):
        cached.cache_clear()
    opened = count_opened(monkeypatch)
    code, _, err = cli("plan", "m.yaml", "--format", "csv")
    assert code == 0 and "still to do: 8 runs" in err
    reads = {name: number for name, number in opened.items() if name.startswith("glue-sst2")}
    trials = {name for name in reads if "lr0.0" in name}
    assert len(reads) == 8 + 2 and len(trials) == 2
    assert {reads[name] for name in trials} <= {1, 2}
    assert {reads[name] for name in reads.keys() - trials} == {1}
    assert opened["config.json"] == 2 and opened["model.safetensors"] == 2


def test_a_fault_is_looked_for_once_for_the_runs_of_a_cell(cli, write, monkeypatch):
    registry.source("tiny-bert")
    write(MATRIX.replace("SEEDS", "[0, 1, 2]").replace("group_size: 2", "group_size: 7"))
    asked, fault = [], foreseen.fault
    monkeypatch.setattr(foreseen, "fault", lambda spec: asked.append(spec.run_id) or fault(spec))
    code, out, err = cli("plan", "m.yaml")
    assert code == 0 and out.count("refused") == 3 and err.count("group_size 7 is more") == 1
    assert len(asked) == 2, "the trials of one cell, and the runs of the other"
