"""Runs as tasks of a stand-in for Ray: what no node can hold, and a thousand runs on 64 nodes."""

import contextlib
import re
import sys
import time
from pathlib import Path

import pytest
from documents import blocks
from factories import make_record
from ray_stand_in import StandIn
from runs import TWO_CELLS

from benchmark.commands.options import key_values
from benchmark.matrices.engines import job
from benchmark.matrices.engines import ray as rays
from benchmark.records import record
from benchmark.records.spec import RunSpec
from benchmark.sizes import GIB

MANY = """
defaults: {model: tiny-bert, data: twin, max_steps: 2, train_examples: 16, lr: 1.0e-3, seeds: SEEDS}
tasks: [glue/sst2]
strategies: {full: {}, head: {}, hift: {}, lora: {}}
"""


@pytest.fixture
def on_nodes(monkeypatch, go):
    """Run a matrix on the nodes given, with as many tasks at once; its runs write the records that they
    would. Returns the stand-in and the outcome."""
    monkeypatch.setattr(job, "LOOK_S", 0.02)

    def made(command, stdout, **_):
        spec_path, folder = map(Path, command[-2:])
        spec = RunSpec.model_validate_json(spec_path.read_text())
        time.sleep(0.05)
        record.write(make_record(spec), folder / f"{spec.run_id}.json")
        return 0

    monkeypatch.setattr(job.subprocess, "call", made)

    def on_nodes(text, nodes, at_once, settings=None, predict=lambda spec, device: (GIB, 0)):
        stand_in = StandIn(nodes)
        monkeypatch.setattr(rays, "_imported", lambda: stand_in)
        monkeypatch.setattr(rays, "_connected", lambda *_: contextlib.nullcontext())
        engine, limits = rays.engine(at_once, {"address": "local", **(settings or {})}, predict)
        return stand_in, *go(text, engine=engine, room=limits)

    return on_nodes


def test_a_run_that_no_node_can_hold_is_recorded_and_not_left_waiting(on_nodes, results):
    """Of two nodes, one has the processors and the other the memory: together they could hold `full`."""
    nodes = [{"CPU": 8, "memory": 4 * GIB}, {"CPU": 1, "memory": 64 * GIB}]
    stand_in, outcome, _ = on_nodes(
        TWO_CELLS,
        nodes,
        2,
        {"num_cpus": 4},
        lambda spec, device: ((11 if spec.label == "full" else 1) * GIB, 0),
    )
    full, head = (f"glue-sst2_tiny-bert_{label}_s0" for label in ("full", "head"))
    assert outcome.ends == {full: "oom", head: "trained"} and stand_in.placed == {0: [head]}
    assert record.load(results / f"{full}.json").error == (
        "not started: predicted to need 12.00 GiB of host memory on one Ray node, of which there is 4.00 GiB"
    )


def test_a_run_that_asks_for_more_than_any_node_has_is_refused(on_nodes, results):
    nodes = [{"CPU": 8, "GPU": 2, "memory": 64 * GIB}]
    *_, outcome, _ = on_nodes(
        TWO_CELLS, nodes, 2, {"num_cpus": 1, "num_gpus": 4, "resources": {"rack": 1}}
    )
    assert set(outcome.ends.values()) == {"refused"}
    assert set(outcome.refused) == {
        "not started: no node of the Ray cluster has 1 CPU, 4 GPU, 1.00 GiB of memory, 1 rack"
    }


def test_a_run_has_a_gpu_and_its_predicted_memory_where_the_cluster_has_gpus(on_nodes):
    """With the settings of docs/team.md."""
    asked = []

    def predict(spec, device):
        asked.append(device)
        return 20 * GIB, 3 * GIB

    _, documented = blocks("docs/team.md", "console")
    settings = key_values("--ray", "", re.findall(r"--ray (\S+)", documented))
    assert settings.pop("address") == "auto"
    nodes = [{"CPU": 8, "GPU": 1, "memory": 16 * GIB}, {"CPU": 64, "memory": 9 * GIB}]
    stand_in, outcome, _ = on_nodes(TWO_CELLS, nodes, 2, settings, predict)
    assert outcome.ran == 2 and set(asked) == {"cuda"} and list(stand_in.placed) == [0]
    assert stand_in.least[0]["GPU"] == 0 and stand_in.least[0]["memory"] == 12 * GIB


@pytest.mark.slow
def test_a_thousand_runs_on_64_nodes_are_each_made_once(on_nodes, results, tmp_path, capsys):
    """Faked runs of 50 ms; the runner's part of the time is printed."""
    nodes = [{"CPU": 2, "memory": 8 * GIB} for _ in range(64)]
    began, busy = time.monotonic(), time.process_time()
    stand_in, outcome, watch = on_nodes(
        MANY.replace("SEEDS", str(list(range(250)))), nodes, 128, {"num_cpus": 1}
    )
    took, busy = time.monotonic() - began, time.process_time() - busy
    print(f"1,000 runs: {took:.1f} s, {busy:.1f} s of the processor: {busy:.2f} ms a run")
    placed = [name for names in stand_in.placed.values() for name in names]
    assert outcome.ran == outcome.ended["trained"] == 1000 and len(placed) == len({*placed}) == 1000
    assert min(free["CPU"] for free in stand_in.least) >= 0, "no node had more than it holds"
    assert {one.run_id for one in record.load_all(results)} == {*placed}
    assert len(watch.of("finished")) == 1000
    assert not list((tmp_path / "results/_scratch/made_up").glob("*.lock"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "ray"], "--engine ray needs Ray: pip install 'hift-benchmark[ray]'"),
        (["--ray", "num_gpus=1"], "--ray: these settings are for --engine ray"),
        (["--engine", "ray", "--ray", "gpus"], "--ray gpus: not NAME=VALUE, such as num_gpus=1"),
        (["--engine", "ray", "--slurm", "mem_gb=4"], "--slurm: these settings are for --engine sl"),
    ],
)
def test_without_ray_or_with_settings_of_another_engine_it_is_one_line(
    refused, write, monkeypatch, options, said
):
    monkeypatch.setitem(sys.modules, "ray", None)
    write(TWO_CELLS)
    assert refused("run", "m.yaml", *options).startswith(said)
