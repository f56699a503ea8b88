"""What every test shares: no network, a cache of the session's own, and runs without a process each."""

import collections
import contextlib
import gc
import io
import logging
import os
import shutil
import signal
import sys
import types
from pathlib import Path

import pytest
import yaml

from benchmark.run.allocator import keep_freed_memory

# before huggingface_hub is imported: it reads this once
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in ("HIFT_DATA_ROOT", "MLFLOW_TRACKING_URI"):
    os.environ.pop(name, None)

# nohup, and a shell that starts pytest in the background, let it ignore signals, and so would all it starts
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

keep_freed_memory()  # as a run does


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection():
    """No garbage is looked for while tests are collected: imports make much that stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is slow
def pytest_collection_modifyitems(items):
    """Of a test marked `sparse`, a combination is slow if each of its values stands in one before it."""
    seen = collections.defaultdict(set)
    for item in items:
        if item.get_closest_marker("sparse"):
            values = {(name, repr(value)) for name, value in item.callspec.params.items()}
            before = seen[item.parent.nodeid, item.originalname]
            if values <= before:
                item.add_marker(pytest.mark.slow)
            before |= values


@pytest.hookimpl(trylast=True)  # a fixture for each of thousands of tests takes more than a second
def pytest_runtest_teardown():
    """`--data-root` sets the variable for the whole process: gone after the test."""
    os.environ.pop("HIFT_DATA_ROOT", None)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(request, tmp_path_factory):
    """Twins are built once a session; nothing of the user's cache is read or written."""
    before, root = os.environ.get("HIFT_CACHE"), tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):  # a process of xdist: all of them share a cache
        root = root.parent
    os.environ["HIFT_CACHE"] = str(root / "cache")
    yield
    os.environ.pop("HIFT_CACHE")
    if before is not None:
        os.environ["HIFT_CACHE"] = before


@pytest.fixture(scope="module", autouse=True)
def _frozen():
    """Garbage collections leave out what is there before a file's tests, such as the modules of torch.

    Some libraries collect at each step or call (badam, statsmodels), which took 0.1 s and more.
    """
    gc.collect()
    gc.freeze()


def child(main):
    """A process (`processes.Process`) that calls `main()`, as a run's would, in this one."""

    class Child:
        def __init__(self, arguments, log, variables, hold=()):
            before = sys.argv, sys.stdout, sys.stderr, logging.raiseExceptions
            printed = io.StringIO()
            sys.argv, sys.stdout, sys.stderr = [sys.argv[0], *arguments], printed, log
            logging.raiseExceptions = False  # libraries' loggers hold the stderr of an earlier test
            try:
                self._code = main()
            finally:
                sys.argv, sys.stdout, sys.stderr, logging.raiseExceptions = before
            self.stdout = io.StringIO(printed.getvalue())

        def wait(self):
            return self._code

        def kill(self): ...

    return Child


@pytest.fixture
def in_process(monkeypatch):
    """Let the runner call the recipe, or the function given, instead of starting a process."""
    from benchmark.matrices import processes

    def use(main=None):
        if main is None:
            from benchmark.run.recipe import main
        starter = types.SimpleNamespace(prepare=lambda variables: None, start=child(main))
        monkeypatch.setattr(processes, "starter", lambda *_: contextlib.nullcontext(starter))

    return use


@pytest.fixture(scope="module")
def read_once():
    """From here on, runs of this file with equal rows share them: they are read and encoded once."""
    from benchmark.data import examples

    read, load = {}, examples.load

    def once(settings, adapter, tokenizer):
        key = settings, adapter.config.name, tokenizer.name_or_path
        if key not in read:
            read[key] = load(settings, adapter, tokenizer)
        return read[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "load", once)
        yield


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Write `splits` (name -> columns) as a mirror's dataset, and make it the data root; returns the root."""
    import pyarrow
    import pyarrow.parquet

    def write(root="mirror", dataset="nyu-mll/glue", config="sst2", **splits):
        folder = tmp_path / root / dataset
        (folder / config).mkdir(parents=True, exist_ok=True)
        files = [{"split": name, "path": f"{config}/{name}-*"} for name in splits]
        header = {"configs": [{"config_name": config, "data_files": files}]}
        (folder / "README.md").write_text(f"---\n{yaml.safe_dump(header)}---\n")
        for name, columns in splits.items():
            file = folder / config / f"{name}-00000-of-00001.parquet"
            pyarrow.parquet.write_table(pyarrow.table(columns), file)
        monkeypatch.setenv("HIFT_DATA_ROOT", str(tmp_path / root))
        return tmp_path / root

    return write


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Empty caches of the Hub's libraries; whoever asks the network fails the test. See hub_caches."""
    import socket

    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asks the network"))
    return tmp_path


@pytest.fixture(scope="session")
def empty_store(_own_cache):
    """An MLflow store whose tables are created once for all tests, because creating them takes seconds."""
    from mlflow import MlflowClient

    from benchmark.files import build_once

    def create(folder):
        MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db").search_experiments()

    return build_once(Path(os.environ["HIFT_CACHE"]) / "empty store", create) / "mlflow.db"


@pytest.fixture
def go(tmp_path):
    """Run a matrix given as text; returns the outcome and what was told."""
    from runs import Watch

    from benchmark.matrices import matrix, runner
    from benchmark.matrices.engines import workers as processes

    def go(text, watch=None, *, workers=1, warm=True, engine=None, **options):
        path = tmp_path / "made_up.yaml"
        path.write_text(text)
        watch = watch or Watch()
        engine = engine or processes.engine(workers, warm)
        outcome = runner.run(
            matrix.load(path),
            tmp_path / "results",
            **{"tracker": watch, "progress": watch, "engine": engine, **options},
        )
        return outcome, watch

    return go


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results" / "made_up"


@pytest.fixture
def planned(tmp_path):
    """The state of every run of the matrix that `go` wrote."""
    from benchmark.matrices import matrix, planning

    def planned():
        loaded = matrix.load(tmp_path / "made_up.yaml")
        return {p.run_id: p.state for p in planning.plan(loaded, tmp_path / "results")}

    return planned


@pytest.fixture
def cli(monkeypatch, capsys):
    """Call hift-bench in this process; returns its exit status and what it wrote to stdout and stderr."""
    from benchmark.cli import main

    def cli(*arguments):
        monkeypatch.setattr(sys, "argv", ["hift-bench", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return cli


@pytest.fixture
def undrawn(monkeypatch):
    """Write empty pictures, for tests that read only text; returns the drawings by their titles."""
    from benchmark.report import drawing, plots

    drawings = {}

    def svg(drawing, salt):
        drawings[drawing.title] = drawing
        return "<svg></svg>"

    monkeypatch.setattr(drawing.Drawing, "svg", svg)
    monkeypatch.setattr(plots, "_label", lambda *_: None)  # it lays out the whole picture
    return drawings


@pytest.fixture(scope="session")
def browser():
    """Chromium as the system has it, or playwright's own; for tests marked `browser`."""
    api = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    system = shutil.which("chromium") or shutil.which("google-chrome")
    with api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=system, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"no Chromium starts: {error}")
        yield started
        started.close()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a matrix into an empty current folder, and say what is there (scratch files aside)."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def write(text):
        Path("m.yaml").write_text(text)

    return write


@pytest.fixture
def refused(cli):
    """Call the command line and return the one line it refuses its input with."""
    from runs import snapshot

    from benchmark.models import registry

    registry.source("tiny-bert")  # which shows a progress bar where it is built first

    def refused(*arguments):
        there = snapshot()
        code, out, err = cli(*arguments)
        assert code == 2, err
        assert "Traceback" not in err
        assert out == "" and err.count("\n") == 1 and err.startswith("hift-bench: ")
        assert snapshot() == there, "something was written"
        return err.removeprefix("hift-bench: ").strip()

    return refused


@pytest.fixture
def refused_by_run(cli, in_process, monkeypatch):
    """Run a matrix whose input only the run itself can find bad; returns the one line that says so.

    Progress and the summary stand beside it. Nothing is left but a record that says the same.
    """
    from runs import Watch

    from benchmark.records import record
    from benchmark.tracking import tracker

    in_process()
    monkeypatch.setattr(tracker, "Tracker", lambda *_: Watch())

    def refused_by_run(*arguments):
        code, _, err = cli("run", "m.yaml", *arguments)
        assert code == 2 and "Traceback" not in err
        left = [p for p in Path("results").rglob("*") if p.is_file() and "_scratch" not in p.parts]
        (said,) = (line for line in err.splitlines() if line.startswith("hift-bench: "))
        reason = said.removeprefix("hift-bench: ")
        for path in left:
            kept = record.load(path)
            assert (kept.status, kept.error, kept.scores) == ("refused", reason, None)
            path.unlink()
        return reason

    return refused_by_run
