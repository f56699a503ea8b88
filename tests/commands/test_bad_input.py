"""Bad matrices and usage: exit 2, one line that names file, key and nearest valid name, nothing written."""

import subprocess
import sys
from pathlib import Path

import pytest
from runs import USUAL

SEARCH = "{search: {lr: [1e-3, 2e-3], examples: 9}}"

MATRIX = {
    "unknown top key": ("tasks:", "taskz:", 'm.yaml: taskz: unknown key (did you mean "tasks"?)'),
    "unknown default": ("lr:", "lrr:", 'm.yaml: defaults.lrr: unknown key (did you mean "lr"?)'),
    "unknown key of a task": (
        *("[glue/sst2]", "{glue/sst2: {train_exampels: 3}}"),
        'm.yaml: tasks.glue/sst2.train_exampels: unknown key (did you mean "train_examples"?)',
    ),
    "no model": (
        *("model: tiny-bert, ", ""),
        "m.yaml: models: missing: name at least one, or give defaults.model",
    ),
    "unknown option": (
        *("order: random", "ordr: random"),
        'm.yaml: strategies.hift.ordr: unknown key (did you mean "order"?)',
    ),
    "option of another strategy": (
        *("full: {}", "full: {group_size: 2}"),
        "m.yaml: strategies.full.group_size: unknown key (valid: ",
    ),
    "unknown key of a cell": (
        *("}}\n", "}}\ncells: [{strategy: full, batchsize: 3}]\n"),
        'm.yaml: cells[0].batchsize: unknown key (did you mean "batch_size"?)',
    ),
    "unknown key of an exclude": (
        *("}}\n", "}}\nexclude: [{strategy: full, taks: x}]\n"),
        'm.yaml: exclude[0].taks: unknown key (did you mean "task"?)',
    ),
    "unknown key of a search": (
        *("full: {}", f"full: {SEARCH}".replace("examples", "exmples")),
        'm.yaml: strategies.full.search: exmples: unknown key (did you mean "examples"?)',
    ),
    "unknown task": (
        *("glue/sst2", "glue/sst22"),
        'm.yaml: tasks.glue/sst22: unknown task (did you mean "glue/sst2"?)',
    ),
    "a task's models are not the matrix's": (
        *("[glue/sst2]", "{glue/sst2: {models: [tiny-brt]}}"),
        "m.yaml: tasks.glue/sst2.models: 'tiny-brt' is not here (did you mean \"tiny-bert\"?)",
    ),
    "a task's models are no list": (
        *("[glue/sst2]", "{glue/sst2: {models: tiny-bert}}"),
        "m.yaml: tasks.glue/sst2.models: 'tiny-bert' is not a list of models",
    ),
    "unknown strategy": (
        *("full: {}", "ful: {}"),
        "m.yaml: strategies.ful: unknown strategy 'ful' (did you mean \"full\"?)",
    ),
    "strategy that is a list": (
        *("full: {}", "mine: {strategy: [hift]}"),
        "m.yaml: strategies.mine: unknown strategy ['hift'] (did you mean \"hift\"?)",
    ),
    "unknown order": (
        *("random", "bottomup"),
        "m.yaml: strategies.hift.order: unknown value 'bottomup' (did you mean \"bottom2up\"?)",
    ),
    "unknown optimizer": (
        *("lr:", "optimizer: adamww, lr:"),
        "m.yaml: defaults.optimizer: unknown optimizer 'adamww' (did you mean \"adamw\"?)",
    ),
    "unknown optimizer option": (
        *("lr:", "optimizer_options: {beta: [0.9, 0.95]}, lr:"),
        "m.yaml: defaults.optimizer_options: optimizer adamw has no option beta "
        '(did you mean "betas"?)',
    ),
    "rate as an option of the optimizer": (
        *("lr:", "optimizer_options: {weight_decay: 0.1}, lr:"),
        "m.yaml: defaults.optimizer_options: weight_decay is a setting of the training",
    ),
    "unknown source": (
        *("twin", "twins"),
        "m.yaml: defaults.data: unknown value 'twins' (did you mean \"twin\"?)",
    ),
    "text for a number": ("1.0e-3", "fast", "m.yaml: defaults.lr: 'fast': input should be a valid"),
    "list for a number": (
        "1.0e-3",
        "[1]",
        "m.yaml: defaults.lr: [1]: input should be a valid number",
    ),
    "true for a number": (
        "1.0e-3",
        "true",
        "m.yaml: defaults.lr: True: a boolean is not allowed here",
    ),
    "nan": ("1.0e-3", ".nan", "m.yaml: defaults.lr: nan: input should be a finite number"),
    "half a step": ("steps: 2", "steps: 2.5", "m.yaml: defaults.max_steps: 2.5: input should be"),
    "negative rate": ("1.0e-3", "-1.0e-3", "m.yaml: defaults.lr: -0.001: input should be greater"),
    "negative steps": ("steps: 2", "steps: -2", "m.yaml: defaults.max_steps: -2: input should be"),
    "no rate": (", lr: 1.0e-3", "", "m.yaml: strategies.full.lr: missing: give lr, or search:"),
    "epochs and steps": (
        "steps: 2",
        "steps: 2, epochs: 1",
        "m.yaml: defaults.epochs: give exactly one of epochs and max_steps",
    ),
    "neither": (
        "max_steps: 2, ",
        "",
        "m.yaml: strategies.full.epochs: give exactly one of epochs and max_steps",
    ),
    "no source": ("data: twin, ", "", "m.yaml: strategies.full.data: Field required"),
    "rate and search": (
        "full: {}",
        f"full: {SEARCH[:-1]}, lr: 1}}",
        "m.yaml: strategies.full: gives lr",
    ),
    "search of one rate": (
        *("full: {}", f"full: {SEARCH}".replace(", 2e-3", "")),
        "m.yaml: strategies.full.search: ['1e-3']: tuple should have at least 2 items",
    ),
    "search of one rate twice": (
        *("full: {}", f"full: {SEARCH}".replace("2e-3", "1e-3")),
        "m.yaml: strategies.full.search: lr: the rates [0.001, 0.001] are not all different",
    ),
    "key twice": (
        "tasks:",
        "tasks: [glue/sst2]\ntasks:",
        "m.yaml: line 3: key 'tasks' is given twice",
    ),
    "key twice deep": ("lr:", "lr: 3, lr:", "m.yaml: line 1: key 'lr' is given twice"),
    "syntax": ("[glue/sst2]", "[glue/sst2", "m.yaml: line 3: expected ',' or ']'"),
    "tab": ("tasks:", "\ttasks:", "m.yaml: line 2: found character '\\t'"),
    "template left in": (
        "tasks:",
        "name: {{ name }}\ntasks:",
        "m.yaml: line 2: a key is a list or table",
    ),
    "excludes all": (
        *("}}\n", "}}\nexclude: [{task: glue/sst2}]\n"),
        "m.yaml: exclude: leaves no cell to run",
    ),
    "excludes what is not here": (
        *("}}\n", "}}\nexclude: [{strategy: lora}]\n"),
        "m.yaml: exclude[0].strategy: 'lora' is not here (valid: full, hift)",
    ),
    "excludes a list": (
        *("}}\n", "}}\nexclude: [{strategy: [full, hift]}]\n"),
        "m.yaml: exclude[0].strategy: ['full', 'hift'] is not here",
    ),
    "seeds a number": (
        "lr:",
        "seeds: 3, lr:",
        "m.yaml: defaults.seeds: 3 is not a list of different",
    ),
    "seeds none": (
        "lr:",
        "seeds: [], lr:",
        "m.yaml: defaults.seeds: [] is not a list of different",
    ),
    "seed twice": ("lr:", "seeds: [0, 0], lr:", "m.yaml: defaults.seeds: [0, 0] is not a list of"),
    "seed negative": (
        "lr:",
        "seeds: [-1], lr:",
        "m.yaml: defaults.seeds: -1: input should be greater",
    ),
    "seed too large": (
        "lr:",
        "seeds: [4294967296], lr:",
        "m.yaml: defaults.seeds: 4294967296: input",
    ),
    "best of nothing": (
        "lr:",
        "select: best, lr:",
        "m.yaml: defaults.select: best requires dev_examples",
    ),
    **{
        f"name of the suite's own folder {name}": (
            *("tasks:", f"name: {name}\ntasks:"),
            f"m.yaml: name: {name} is a folder of the suite itself (taken: memory, speed, ",
        )
        for name in ("memory", "regression", "_scratch", "Paper")
    },
    "name of 101 letters": (
        *("tasks:", f"name: {'n' * 101}\ntasks:"),
        "m.yaml: name: 'nnnnnnnnnnnn...nnnnnnnnnnnnn' is not a name of 1 to 100 letters, digits",
    ),
    **{
        f"label {said}": (
            *("full: {}", f"{label}: {{strategy: full}}"),
            f"m.yaml: strategies: {said} is not a name of 1 to 100 printable characters",
        )
        for label, said in (
            ('""', "''"),
            ('" "', "' '"),
            (r'"\0"', r"'\x00'"),
            (r'"\e[2J"', r"'\x1b[2J'"),
            (r'"a\nb"', r"'a\nb'"),
            ('"' + "x" * 101 + '"', "'xxxxxxxxxxxx...xxxxxxxxxxxxx'"),
        )
    },
    "labels that are one file name": (
        *("full: {}", "full: {}, Full: {strategy: full}"),
        "m.yaml: two cells would share the run id glue-sst2_tiny-bert_Full_s0; rename one",
    ),
    "a run id of no file name": (
        *("tiny-bert", "m" * 200),
        "m.yaml: the run id 'glue-sst2_mm...mmmmm_full_s0' has 218 characters, too many for a file",
    ),
    "strange name": (
        "tasks:",
        "name: a/b\ntasks:",
        "m.yaml: name: 'a/b' is not a name of 1 to 100 letters",
    ),
    "tasks as text": ("[glue/sst2]", "glue/sst2", "m.yaml: tasks: 'glue/sst2' is not a table"),
    "number for a key": ("tasks:", "3: 4\ntasks:", "m.yaml: the file: the key 3 is not a name"),
}


@pytest.mark.parametrize(("old", "new", "said"), MATRIX.values(), ids=MATRIX)
def test_matrix(write, refused, old, new, said):
    assert old in USUAL
    write(USUAL.replace(old, new, 1))
    assert refused("plan", "m.yaml").startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "m.yaml: the file: None is not a table"),
        ("- a\n- b\n", "m.yaml: the file: ['a', 'b'] is not a table"),
        ("\x01", "m.yaml: unacceptable character"),
        (b"\xff\xfe\x00", "m.yaml: cannot be read: "),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run", "status", "report", "sync"])
def test_no_matrix_at_all(write, refused, command, content, said):
    write("")
    Path("m.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert refused(command, "m.yaml").startswith(said)


@pytest.mark.parametrize("command", ["plan", "run", "status", "report", "sync"])
def test_missing_matrix(write, refused, command):
    write(USUAL)
    assert refused(command, "mm.yaml") == 'mm.yaml: no such matrix file (did you mean "m.yaml"?)'
    assert refused(command, "no/where.yaml") == "no/where.yaml: no such matrix file"
    assert refused(command, ".").startswith(".: cannot be read: ")


USAGE = {
    ("rnu", "m.yaml"): "No such command 'rnu'. Did you mean 'run'?",
    ("plan",): "Missing argument 'matrix'.",
    ("plan", "m.yaml", "--formt", "json"): "No such option: --formt",
    ("plan", "m.yaml", "--format", "jsn"): "Invalid value for '--format': ",
    ("plan", "m.yaml", "more"): "Got unexpected extra argument (more)",
    ("run", "m.yaml", "--limit", "0"): "Invalid value for '--limit': ",
    ("list", "taks"): 'list taks: no such list (did you mean "tasks"?)',
    ("list",): "Missing argument 'what'.",
    ("run", "m.yaml", "--results", "m.yaml"): "m.yaml/_scratch/m: not a directory",
    ("regress", "--golden", "nowhere"): "nowhere/golden.json: no golden values",
}


@pytest.mark.parametrize(("arguments", "said"), USAGE.items(), ids=" ".join)
def test_usage(write, refused, arguments, said):
    write(USUAL)
    found = refused(*arguments)
    assert found.replace("argument(s)", "argument").startswith(said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "typo.yaml"], "typo.yaml: defaults.lrr: unknown key"),
        (["run", "mirror.yaml", "--data-root", "nowhere"], "has no dataset nyu-mll/glue"),
        (["rnu"], "No such command 'rnu'"),
    ],
)
def test_as_a_process(tmp_path, arguments, said):
    """The installed command itself: exit status, one line, no traceback."""
    (tmp_path / "typo.yaml").write_text(USUAL.replace("lr:", "lrr:"))
    (tmp_path / "mirror.yaml").write_text(USUAL.replace("twin", "mirror"))
    command = [str(Path(sys.executable).parent / "hift-bench"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and said in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mirror.yaml", "typo.yaml"]
