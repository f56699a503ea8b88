"""README.md and CONTRIBUTING.md hold what they say: every command and code block in them is run here.

A command that COMMANDS does not know fails, so that none is added without a way to try it.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from factories import make_spec, make_strategy

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
MIRROR_MATRIX = Path("benchmark/matrices/minilm_sst2.yaml")

# how each command is tried: `walk` as printed, in the documents' order, in a folder that holds mine.yaml;
# `make` by make -n; `mirror` up to the data root that is not there; `plan` in the checkout; `speed` on
# fewer, shorter steps; `memory` on a smaller model; `shell` sets up the reader's own shell
COMMANDS = {
    "make demo": "make",
    "make test": "make",
    "make test slow": "make",
    "make lint types": "make",
    "make regress": "make",
    ". .venv/bin/activate": "shell",
    "hift-bench plan mine.yaml": "walk",
    "hift-bench run mine.yaml": "walk",
    "hift-bench status mine.yaml --format md": "walk",
    "hift-bench report mine.yaml": "walk",
    "hift-bench list tasks": "walk",
    "hift-bench list models": "walk",
    "hift-bench list strategies": "walk",
    "hift-bench list matrices": "walk",
    f"hift-bench run {MIRROR_MATRIX} --data-root path/to/mirror": "mirror",
    "hift-bench dashboard": "dashboard",
    "hift-bench schedule roberta-large --group-size 4 --order random --steps 40 --format csv": "walk",
    "hift-bench speed --strategies full,hift,lora": "speed",
    "hift-bench memory llama-7b --strategy hift --precision mixed_hi --batch-size 1 --seq-len 512 "
    "--budget 24GiB": "memory",
    "hift-bench tables --list": "walk",
    "hift-bench tables trainable-parameters": "walk",
    "hift-bench tables memory-llama-7b --format csv": "walk",
    "hift-bench tables --all --out reports/paper": "walk",
    "hift-bench plan benchmark/matrices/roberta_fewshot.yaml": "plan",
}


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def examples(heading: str, language: str) -> list[str]:
    """The code blocks of one section of CONTRIBUTING."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.split(r"^#+ ", text.partition(f"### {heading}")[2], maxsplit=1, flags=re.M)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every line of the shell blocks, in order, once."""
    lines = "".join(blocks("README.md", "sh") + blocks("CONTRIBUTING.md", "sh")).splitlines()
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def tried(how: str) -> list[str]:
    return [command for command in commands() if COMMANDS.get(command) == how]


@pytest.fixture(scope="module")
def surroundings():
    """The environment of a reader who has activated the virtual environment and set nothing else."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in ("MLFLOW_TRACKING_URI", "HIFT_DATA_ROOT", "MAKEFLAGS", "MAKELEVEL")
    }
    return kept | {"PATH": f"{BIN}{os.pathsep}{kept['PATH']}", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def walked(tmp_path_factory, surroundings):
    """The folder after the README's walk through a matrix, and what each command printed."""
    folder = tmp_path_factory.mktemp("walk")
    (matrix,) = blocks("README.md", "yaml")
    name = re.match(r"# (\S+\.yaml)\n", matrix)
    (folder / name[1]).write_text(matrix, encoding="utf-8")
    printed = {}
    for command in tried("walk"):
        done = subprocess.run(
            command, shell=True, cwd=folder, env=surroundings, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        printed[command] = done.stdout
    return folder, printed


def test_every_command_is_known_here_and_nothing_known_here_is_gone():
    assert set(commands()) == set(COMMANDS)


@pytest.mark.parametrize("command", tried("make"))
def test_make_knows_its_targets(command, surroundings):
    done = subprocess.run(
        [*command.split(), "-n"], cwd=ROOT, env=surroundings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_walk_leaves_two_scored_runs_a_report_and_tracking(walked):
    folder, printed = walked
    assert len(list((folder / "results/mine").glob("*.json"))) == 2
    assert (folder / "reports/mine/index.html").is_file() and (folder / "mlflow.db").is_file()
    assert printed["hift-bench plan mine.yaml"].count("missing") == 2
    full, hift = printed["hift-bench status mine.yaml --format md"].splitlines()[2:]
    assert "| full |" in full and "| hift |" in hift and "1 of 1" in full and "1 of 1" in hift
    assert printed["hift-bench report mine.yaml"].strip() == "reports/mine/index.html"
    assert "glue/sst2" in printed["hift-bench list tasks"]
    assert "tiny-gpt2" in printed["hift-bench list models"]
    assert "hift" in printed["hift-bench list strategies"]
    assert "minilm_sst2" in printed["hift-bench list matrices"]


def test_the_schedule_has_a_row_per_step(walked):
    (schedule,) = (out for command, out in walked[1].items() if "schedule" in command)
    header, *rows = schedule.splitlines()
    assert header.startswith("step,sweep,group,units,lr") and len(rows) == 40


def test_the_tables_are_written_and_hold_the_abstract_s_mean(walked):
    folder, printed = walked
    assert "opt13b-superglue" in printed["hift-bench tables --list"]
    assert "89.18" in printed["hift-bench tables trainable-parameters"]
    assert len(printed["hift-bench tables memory-llama-7b --format csv"].splitlines()) == 26
    assert (folder / "reports/paper/index.html").is_file()


def test_the_example_table_is_one_yaml(tmp_path):
    from benchmark.tables import definition

    path = tmp_path / "ablation-group-size.yaml"
    path.write_text(examples("A table", "yaml")[0], encoding="utf-8")
    assert definition.read(path).matrix == "group_size"


@pytest.mark.slow
def test_speed_prints_its_ratios(tmp_path, surroundings):
    (command,) = tried("speed")
    small = [*command.split(), "--batch-size", "1", "--seq-len", "16", "--sweeps", "1"]
    done = subprocess.run(small, cwd=tmp_path, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ratio_to_full" in done.stdout and "lora" in done.stdout


def test_plan_says_what_is_missing(surroundings, tmp_path):
    (command,) = tried("plan")
    empty = surroundings | {"HF_HOME": str(tmp_path)}  # whatever this machine's own cache holds
    done = subprocess.run(command.split(), cwd=ROOT, env=empty, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fewshot-trec-k512" in done.stdout and "missing weights" in done.stderr


@pytest.mark.slow
def test_memory_says_what_fits(tmp_path, surroundings):
    (command,) = tried("memory")
    smaller = command.replace("llama-7b", "roberta-base").replace("24GiB", "4GiB")
    done = subprocess.run(
        [*smaller.split(), "--format", "json"],
        cwd=tmp_path,
        env=surroundings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert '"fits"' in done.stdout


def test_what_24_gib_hold_is_what_the_table_says():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    said = re.search(
        r"the answer is ([\d.]+) GiB\. A batch of (\d+) takes ([\d.]+) GiB, which 24 GiB hold; "
        r"a batch of (\d+) takes ([\d.]+) GiB, which is \[too close to call\]",
        text,
    ).groups()
    table = json.loads((ROOT / "reports/paper/claim-7b-24gb.json").read_text(encoding="utf-8"))
    rows = {
        row["batch_size"]: (f"{row['peak_gb']:.1f}", row["verdict"])
        for row in table
        if (row["precision"], row["seq_len"], row["budget_gb"]) == ("mixed_hi", 512, 24)
    }
    assert rows[1] == (said[0], "fits")
    assert rows[int(said[1])] == (said[2], "fits")
    assert rows[int(said[3])] == (said[4], "inconclusive")


def test_a_mirror_that_is_not_there_is_refused_by_name(tmp_path, surroundings):
    (tmp_path / MIRROR_MATRIX.parent).mkdir(parents=True)
    shutil.copy(ROOT / MIRROR_MATRIX, tmp_path / MIRROR_MATRIX)
    (command,) = tried("mirror")
    done = subprocess.run(
        command.split(), cwd=tmp_path, env=surroundings, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "path/to/mirror" in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_dashboard_answers_at_the_address_it_prints(walked, surroundings):
    folder, _ = walked
    (command,) = tried("dashboard")
    server = subprocess.Popen(
        command.split(),
        cwd=folder,
        env=surroundings,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+", server.stderr.readline())[0]
        page, deadline = "", time.monotonic() + 120
        while not page and time.monotonic() < deadline:
            time.sleep(0.5)
            with contextlib.suppress(OSError):
                page = urllib.request.urlopen(address, timeout=10).read().decode()
        assert "MLflow" in page
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(timeout=30)


def test_the_training_loop_in_the_readme_trains_every_unit(capsys):
    (loop,) = blocks("README.md", "python")
    exec(compile(loop, "README.md", "exec"), {"__name__": "readme"})
    steps = re.findall(r"loss (\S+) trained (\S+)", capsys.readouterr().out)
    losses = [float(loss) for loss, _ in steps]
    assert [unit for _, unit in steps[:6]] == [
        "embeddings",
        *(f"transformer.h.{i}" for i in range(4)),
        "head",
    ]
    assert losses[-1] < 0.75 * losses[0]


def test_the_readme_s_links_are_existing_files():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://|#)([^)]+)\)", text)
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_s_results_are_rows_of_the_report():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- minilm_sst2:begin -->")[2].partition("<!-- minilm_sst2:end -->")[0]
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert len(rows) > 2  # under two lines of header
    report = (ROOT / "reports/minilm_sst2/report.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if row not in report] == []


# --- CONTRIBUTING.md: each thing added as it says -------------------------------------------------


def test_the_example_strategy_works_as_one_file_and_one_line(tmp_path, monkeypatch):
    from transformers import BertConfig, BertForSequenceClassification

    from benchmark.matrices import matrix
    from benchmark.strategies import STRATEGIES

    file, line = examples("A strategy", "python")
    ((name, place),) = eval(f"{{{line}}}").items()
    module = tmp_path / "added_strategy.py"
    module.write_text(file, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(STRATEGIES, name, f"{module.stem}:{place.partition(':')[2]}")

    settings = "{data: twin, lr: 1.0e-3, max_steps: 1, seeds: [0]}"
    path = tmp_path / "added.yaml"
    path.write_text(
        f"name: added\ndefaults: {settings}\nmodels: [tiny-bert]\ntasks: [glue/sst2]\n"
        f"strategies: {{{name}: {{norms: true}}}}\n"
    )
    (cell,) = matrix.load(path).cells
    (spec,) = cell.runs(None)
    sizes = dict(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    model = BertForSequenceClassification(BertConfig(**sizes, intermediate_size=32))
    strategy = make_strategy(spec)
    prepared = strategy.prepare(model)
    trained = {name for name, p in prepared.named_parameters() if p.requires_grad}
    assert trained == {
        name
        for name, _ in model.named_parameters()
        if name.endswith("bias") or "LayerNorm" in name or name.startswith("classifier")
    }
    optimizer, _ = strategy.optimizer(prepared, total_steps=1)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(trained)


def test_the_example_model_is_of_the_hub():
    from benchmark.models import registry

    (line,) = examples("A model", "python")
    ((_, place),) = eval(f"{{{line}}}").items()
    kind, _, location = place.partition(":")
    assert registry.source(location).kind == kind


def test_the_example_optimizer_is_complete_as_one_entry(monkeypatch):
    import torch

    from benchmark import optimizers

    (line,) = examples("An optimizer", "python")
    ((name, entry),) = eval(f"{{{line}}}", {"Optimizer": optimizers.Optimizer}).items()
    monkeypatch.setitem(optimizers.OPTIMIZERS, name, entry)
    spec = make_spec(optimizer=name, optimizer_options={"lambd": 1e-3})
    optimizer, _ = make_strategy(spec).optimizer(torch.nn.Linear(2, 2), total_steps=1)
    assert isinstance(optimizer, torch.optim.ASGD)
    assert {group["lambd"] for group in optimizer.param_groups} == {1e-3}


def add_line(path: Path, table: str, line: str) -> None:
    """Put `line` first into the dict called `table`."""
    text = path.read_text(encoding="utf-8")
    text, found = re.subn(rf"^({table}\b.*= {{\n)", lambda m: m[1] + line, text, flags=re.M)
    assert found == 1, table
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def contributed(tmp_path):
    """A copy of the package and its tests with every example of CONTRIBUTING in its place."""
    for name in ("benchmark", "tasks", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    file, line = examples("A strategy", "python")
    (tmp_path / "benchmark/strategies/bitfit.py").write_text(file, encoding="utf-8")
    add_line(tmp_path / "benchmark/strategies/__init__.py", "STRATEGIES", line)
    whole, included = examples("A task", "yaml")
    for name, text in {"sentiment/rotten_tomatoes": whole, "mezo/sst2_review": included}.items():
        path = tmp_path / f"tasks/configs/{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (metric,) = examples("A metric", "python")
    (tmp_path / "tasks/metrics/mean_absolute_error.py").write_text(metric, encoding="utf-8")
    (model,) = examples("A model", "python")
    add_line(tmp_path / "benchmark/models/registry.py", "MODELS", model)
    (optimizer,) = examples("An optimizer", "python")
    add_line(tmp_path / "benchmark/optimizers.py", "OPTIMIZERS", optimizer)
    (family,) = examples("A family of models", "python")
    add_line(tmp_path / "benchmark/twin/models.py", "TWINS", family)
    return tmp_path


CONTRACTS = {
    "tests/strategies/test_strategies.py": "bitfit",
    "tests/memory/test_simulate.py": "bitfit",
    "tests/tasks": "rotten_tomatoes or sst2_review or mean_absolute_error or glue/sst2-tiny-electra",
    "tests/twin/test_twin_models.py": "[tiny-electra]",
    "tests/test_optimizers.py": "asgd",
    "tests/matrices/test_twin_all_tasks.py": "test_every",
}
"""Test files -> which of their tests concern the examples, or all entries of a table at once."""


def test_the_examples_pass_the_tests_of_what_is_shipped(contributed, surroundings):
    """With nothing else touched: neither a list in the tests nor a file of theirs."""
    which = " or ".join(CONTRACTS.values())
    options = ["-v", "-p", "no:cacheprovider", "-o", "addopts=", "-m", "not slow", "-k", which]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *CONTRACTS],
        cwd=contributed,
        env=surroundings | {"PYTHONPATH": str(contributed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    for name in (
        "bitfit",
        "rotten_tomatoes",
        "sst2_review",
        "mean_absolute_error",
        "asgd",
        "tiny-electra",
    ):
        assert re.search(rf"{name}.* PASSED", done.stdout), name


def test_the_example_experiment_is_a_matrix(tmp_path):
    from benchmark.matrices import matrix

    path = tmp_path / "group_size.yaml"
    path.write_text(examples("An experiment", "yaml")[0], encoding="utf-8")
    cells = matrix.load(path).cells
    assert [cell.label for cell in cells] == ["full", "hift_m1", "hift_m2"]
    assert sum(len(cell.run_ids) for cell in cells) == 9
