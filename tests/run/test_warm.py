"""The warm server's imports leave nothing behind that a fork could trip over, and nothing to import.

A fork does what an interpreter of its own does.
"""

import contextlib
import dataclasses
import json
import shlex
import sys

import pytest
from factories import make_spec
from test_allocator import FAULTS, PAGES

from benchmark.matrices import child, processes
from benchmark.records import record

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="there is no warm server"),
]

WATCHED = """\
import json, os, sys, threading
import numpy, torch
from benchmark.run import warm

FAULTS
def tell(**facts):
    with open(TOLD, "a") as file:
        print(json.dumps(facts), file=file)

def states():
    # Python's own generator is seeded anew in every fork, by Python
    return [str(state) for state in (numpy.random.get_state(), torch.get_rng_state().tolist())]

preload, asking = warm.preload, (torch.cuda.is_available, torch.cuda.device_count)

def watched_preload():
    asked, before = [], states()
    torch.cuda.is_available = torch.cuda.device_count = lambda: asked.append(1) or 0
    preload()
    torch.cuda.is_available, torch.cuda.device_count = asking
    tasks = len(os.listdir("/proc/self/task"))
    facts = {"unsafe": warm.unsafe(), "threads": threading.active_count(), "tasks": tasks}
    from benchmark.measure.peaks import host_rss_peak
    from benchmark.run import recipe
    large = bytearray(os.urandom(1)) * (600 << 20)
    del large
    peak = host_rss_peak()
    tell(**facts, random=states() == before, asked=bool(asked), peak=peak)
    there, main = set(sys.modules), recipe.main

    def watched_main():
        peak, code = host_rss_peak(), main()
        imported = sorted(set(sys.modules) - there)
        tell(code=code, peak=peak, imported=imported, faults=[faults(), faults()])
        return code

    recipe.main = watched_main

warm.preload = watched_preload
sys.exit(warm.main())
""".replace("FAULTS", FAULTS)
"""The warm server, which writes to TOLD what it says of itself, and then what each fork says of itself."""


def spec_of(**options):
    return make_spec(
        **{"strategy": "hift", "options": options, "precision": "bf16", "model": "tiny-bert"},
        **{"data": "twin", "lr": 1e-3, "epochs": None, "max_steps": 6, "train_examples": 24},
        **{"eval_examples": 12, "batch_size": 4, "max_length": 24},
    )


USUAL, LATE = spec_of(), spec_of(adapter="lora")
"""Groups and autocast; the second also imports a library that the server must not import (bitsandbytes)."""


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
    """What the server and its first fork say of themselves, and what the second fork recorded."""
    folder = tmp_path_factory.mktemp("forked")
    told, python = folder / "told", folder / "python"
    server = shlex.quote(WATCHED.replace("TOLD", repr(str(told))))
    # $3 is the socket: the command is `python -m benchmark.run.warm SOCKET`
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {server} "$3"\n')
    python.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        with processes.starter(True, folder / "warm.log", pytest.fail) as starter:
            _, recorded = (run(starter, spec, folder) for spec in (USUAL, LATE))
    server, fork, _ = map(json.loads, told.read_text().splitlines())
    return server, fork, recorded


def test_imports_start_no_thread_ask_for_no_gpu_and_draw_no_number(forked):
    server, *_ = forked
    facts = ("unsafe", "threads", "tasks", "random", "asked")
    assert [server[fact] for fact in facts] == [None, 1, 1, True, False]


def test_a_fork_imports_next_to_nothing(forked):
    _, fork, _ = forked
    assert fork["code"] == 0
    new = [name for name in fork["imported"] if not name.startswith("evaluate_modules")]
    assert len(new) < 20, new


def test_the_host_peak_of_a_fork_is_its_own(forked):
    """Not what the server once held."""
    server, fork, _ = forked
    assert fork["peak"] < server["peak"] - (500 << 20)


def test_a_run_keeps_the_memory_that_it_frees(forked):
    _, fork, _ = forked
    assert fork["faults"][1] < PAGES / 100


def test_a_fork_and_an_interpreter_of_its_own_give_the_same_record(forked, tmp_path):
    *_, recorded = forked
    assert run(processes.Interpreters(), LATE, tmp_path) == recorded


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
