"""The warm server's imports: they leave nothing behind that a fork could trip over, and nothing to import."""

import contextlib
import dataclasses
import json
import subprocess
import sys

import pytest
from factories import make_spec
from test_allocator import FAULTS, PAGES

from benchmark.matrices import child, processes
from benchmark.records import record

PRELOADED = """\
import json, os, sys, threading
import numpy, torch
from benchmark.run import warm

asked = []
torch.cuda.is_available = torch.cuda.device_count = lambda: asked.append(1) or 0
def states():
    # Python's own generator is seeded anew in every fork, by Python
    return [str(state) for state in (numpy.random.get_state(), torch.get_rng_state().tolist())]
before = states()
warm.preload()
told = {
    "unsafe": warm.unsafe(),
    "threads": threading.active_count(),
    "tasks": len(os.listdir("/proc/self/task")),
    "random": states() == before,
    "asked for a GPU": bool(asked),
}
from benchmark.measure.peaks import host_rss_peak
FAULTS
large = bytearray(os.urandom(1)) * (600 << 20)
del large
told["peak"] = host_rss_peak()
there = set(sys.modules)
read, write = os.pipe()
if os.fork():
    os.close(write)
    print(json.dumps(told | json.load(os.fdopen(read))))
else:
    peak = host_rss_peak()
    from benchmark.run import recipe
    sys.stdout = sys.stderr
    code = recipe.main()
    imported = sorted(set(sys.modules) - there)
    told = {"code": code, "peak of the fork": peak, "imported": imported, "faults": [faults(), faults()]}
    os.write(write, json.dumps(told).encode())
""".replace("FAULTS", FAULTS)


USUAL = {
    "model": "tiny-bert",
    "data": "twin",
    "epochs": None,
    "max_steps": 6,
    "train_examples": 24,
    "eval_examples": 12,
    "batch_size": 4,
    "max_length": 24,
    "lr": 1e-3,
}


def spec_of(strategy, precision="fp32"):
    return make_spec(strategy=strategy, precision=precision, **USUAL)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What a process says of itself that has preloaded, and a fork of it of a run."""
    folder = tmp_path_factory.mktemp("preloaded")
    spec = spec_of("hift")
    (folder / "spec.json").write_text(spec.model_dump_json())
    done = subprocess.run(
        [sys.executable, "-c", PRELOADED, str(folder / "spec.json"), str(folder)],
        env=child.environment_of(spec),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="there is no warm server")
def test_imports_start_no_thread_ask_for_no_gpu_and_draw_no_number(told):
    facts = ("unsafe", "threads", "tasks", "random", "asked for a GPU")
    assert [told[fact] for fact in facts] == [None, 1, 1, True, False]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="there is no warm server")
def test_a_fork_imports_next_to_nothing(told):
    assert told["code"] == 0
    new = [name for name in told["imported"] if not name.startswith("evaluate_modules")]
    assert len(new) < 20, new


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="there is no warm server")
def test_the_host_peak_of_a_fork_is_its_own(told):
    """Not what the server once held."""
    assert told["peak of the fork"] < told["peak"] - (500 << 20)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="there is no warm server")
def test_a_run_keeps_the_memory_that_it_frees(told):
    assert told["faults"][1] < PAGES / 100


SPECS = [spec_of("hift", "bf16"), spec_of("lora")]


@pytest.fixture(scope="module", autouse=True)
def foreign(tmp_path_factory):
    """A working directory with packages of our names, and of a library's, that are not ours."""
    folder = tmp_path_factory.mktemp("foreign")
    for name in ("benchmark", "tasks", "numpy"):
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} of the working directory')")
    with contextlib.chdir(folder):
        yield


def run(starter, spec, folder):
    """Start a run, wait for its end and return what it recorded."""
    path, log = folder / f"{spec.hash}.json", folder / f"{spec.hash}.log"
    path.write_text(spec.model_dump_json())
    with open(log, "w") as file:
        process = starter.start([str(path), str(folder)], file, child.environment_of(spec))
        list(process.stdout)
        assert process.wait() == 0, log.read_text()
    return untimed(folder, spec)


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    """What forks of one server recorded, by spec."""
    folder = tmp_path_factory.mktemp("forked")
    with processes.starter(True, folder / "warm.log", pytest.fail) as starter:
        return {spec.hash: run(starter, spec, folder) for spec in SPECS}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="there is no warm server")
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.strategy}-{spec.precision}")
def test_a_fork_and_an_interpreter_of_its_own_give_the_same_record(spec, forked, tmp_path):
    assert run(processes.Interpreters(), spec, tmp_path) == forked[spec.hash]


def untimed(folder, spec):
    """The record of `spec` in `folder`, its curve and predictions, without what differs from run to run."""
    done = record.load(folder / f"{spec.run_id}.json")
    curve = record.read_curve(folder / done.curve)
    kept = dataclasses.asdict(done)
    for part, name in (
        *(("train", "seconds"), ("train", "step_ms_median"), ("train", "step_ms_p90")),
        *(("train", "others"), ("memory", "host_rss_peak")),
    ):
        del kept[part][name]
    del kept["times"], curve["seconds"], curve["step_ms"]
    return kept, curve, (folder / done.predictions).read_bytes()
