"""CONTRIBUTING.md's examples: each is added as it says, with nothing else touched, and passes its tests."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT, blocks, surroundings
from factories import make_spec, make_strategy


def examples(heading: str, language: str) -> list[str]:
    """The code blocks of one section."""
    return blocks("CONTRIBUTING.md", language, heading)


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
        if ".attention." in name or "LayerNorm" in name or name.startswith("classifier")
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
    (tmp_path / "benchmark/strategies/attention_tuning.py").write_text(file, encoding="utf-8")
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
    "tests/strategies/test_strategies.py": "attention_tuning",
    "tests/memory/test_simulate.py": "attention_tuning",
    "tests/tasks": "rotten_tomatoes or sst2_review or mean_absolute_error or glue/sst2-tiny-electra"
    " or test_every_golden or test_every_metric or test_every_task",
    "tests/twin/test_twin_models.py": "[tiny-electra]",
    "tests/test_optimizers.py": "asgd or test_every_name",
    "tests/matrices/test_twin_all_tasks.py": "test_every_task or test_every_kind",
}
"""Test files -> which of their tests concern the examples, or all entries of a table at once."""


@pytest.mark.slow
def test_the_examples_pass_the_tests_of_what_is_shipped(contributed):
    """With nothing else touched: neither a list in the tests nor a file of theirs."""
    which = " or ".join(CONTRACTS.values())
    here = "not chaos and not gpu and not network and not browser"
    options = ["-v", "-p", "no:cacheprovider", "-o", "addopts=", "-m", here, "-k", which]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *CONTRACTS],
        cwd=contributed,
        env=surroundings() | {"PYTHONPATH": str(contributed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    for name in (
        "attention_tuning",
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


def test_the_example_table_is_one_yaml(tmp_path):
    from benchmark.tables import definition

    path = tmp_path / "ablation-group-size.yaml"
    path.write_text(examples("A table", "yaml")[0], encoding="utf-8")
    assert definition.read(path).matrix == "group_size"
