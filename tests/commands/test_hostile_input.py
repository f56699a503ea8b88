"""Hostile input of every kind: exit 2, at most three lines, no traceback, and nothing half-written.

Ordinary mistakes, such as a misspelt key, are in test_bad_input.py.
"""

import itertools
import json
import os
import resource
import sys
from pathlib import Path

import pytest
from factories import make_record
from runs import USUAL, snapshot

from benchmark.matrices import matrix
from benchmark.models import registry
from benchmark.records import record

DIGITS, LARGE, DEEP = "9" * 5000, f"1{'0' * 30}", "[" * 1000
NAMES = "abcdefghijklmnopqrst"
BOMB = "bomb: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(ord(a) + 1)}: &{chr(ord(a) + 1)} [{', '.join([f'*{a}'] * 9)}]\n" for a in "abcdefgh"
)


def but(old, new):
    assert old in USUAL
    return USUAL.replace(old, new, 1)


def setting(text):
    return but("lr:", f"{text}, lr:")


MATRICES = {
    "5,000 digits": (but("1.0e-3", DIGITS), "line 1: Exceeds the limit (4300 digits)"),
    "5,000 digits as a count": (but("steps: 2", f"steps: {DIGITS}"), "Exceeds the limit"),
    "5,000 digits as a seed": (setting(f"seeds: [{DIGITS}]"), "Exceeds the limit"),
    "5,000 digits as a key": (f"? {DIGITS}\n: 3\n", "Exceeds the limit"),
    "lists 1,000 deep": (DEEP, "nested too deeply"),
    "closed lists 1,000 deep": (but("1.0e-3", DEEP + "]" * 1000), "nested too deeply"),
    "tables 1,000 deep": ("{a: " * 1000 + "1" + "}" * 1000, "nested too deeply"),
    "an alias bomb": (BOMB + USUAL, "line 6: aliases stand for more than 100,000 values"),
    "an alias bomb of tables": (
        "a: &a {x: 1}\n"
        + "".join(f"{k}: &{k} {{x: *{p}, y: *{p}}}\n" for p, k in itertools.pairwise(NAMES))
        + USUAL,
        "aliases stand for more than 100,000 values",
    ),
    "a list in itself": (but("1.0e-3", "&a [*a]"), "a list or table contains itself"),
    "a table in itself": (but("full: {}", "full: &a {b: *a}"), "a list or table contains itself"),
    "half a surrogate pair as a label": (but("full: {}", r'"\ud800": {strategy: full}'), "utf-8"),
    "half a surrogate pair as a model": (but("tiny-bert", r'"\udfff"'), "line 1: 'utf-8' codec"),
    "half a surrogate pair in prose": ('description: "\\ud800"\n' + USUAL, "line 1: 'utf-8' codec"),
    "infinity by its size": (but("1.0e-3", "1.0e+400"), "defaults.lr: inf: input should be a finite"),
    "infinity as text": (but("1.0e-3", "1e400"), "defaults.lr: '1e400': input should be a finite"),
    "minus infinity": (but("1.0e-3", "-.inf"), "defaults.lr: -inf: input should be"),
    "infinite clipping": (setting("clip: .inf"), "defaults.clip: inf: input should be a finite"),
    "a warm-up of NaN": (setting("warmup: .nan"), "defaults.warmup: nan: input should be a finite"),
    "more epochs than time": (but("max_steps: 2", "epochs: 1e308"), "defaults.epochs: '1e308': "),
    "more steps than time": (but("steps: 2", f"steps: {LARGE}"), "defaults.max_steps: "),
    "a batch of more than there is": (setting(f"batch_size: {LARGE}"), "defaults.batch_size: "),
    "texts without end": (setting(f"max_length: {LARGE}"), "defaults.max_length: "),
    "held-out rows without end": (setting(f"dev_examples: {LARGE}"), "defaults.dev_examples: "),
    "rows without end": (setting(f"train_examples: {LARGE}"), "defaults.train_examples: "),
    "trials without end": (
        but("full: {}", "full: {search: {lr: [1e-5, 1e-3], extend: 1000000000, examples: 8}}"),
        "strategies.full.search: 1000000000: input should be less than or equal to 100",
    ),
    "proposals without end": (
        but("full: {}", "full: {search: {lr: [1, 2], sampler: tpe, rates: 1000000, examples: 8}}"),
        "strategies.full.search: 1000000: input should be less than or equal to 1000",
    ),
    "a date that there is not": (but("1.0e-3", "2020-13-45"), "line 1: month must be in 1..12"),
    "a time that there is not": (but("1.0e-3", "2020-01-01 99:99:99"), "line 1: hour must be in"),
    "a date": (but("1.0e-3", "2020-01-01"), "defaults.lr: datetime.date(2020, 1, 1): input"),
    "bytes": (but("1.0e-3", "!!binary aGk="), "defaults.lr: b'hi': input should be a valid number"),
    "a set": (but("1.0e-3", "!!set {a, b}"), "defaults.lr: {"),
    "code": (but("1.0e-3", "!!python/object/apply:os.mkdir [x]"), "could not determine a construct"),
    "a merge of a number": ("<<: 3\n" + USUAL, "line 1: expected a mapping or list of mappings"),
    "two documents": (f"{USUAL}---\n{USUAL}", "line 4: but found another document"),
    "an ordered map of names": (but("1.0e-3", "!!omap [a]"), "line 1: expected a mapping of length"),
    "a NUL byte": (USUAL + "\0", "unacceptable character"),
    "options 50 deep": (
        setting(f"optimizer_options: {{betas: {'[' * 50}{']' * 50}}}"),
        "defaults.optimizer_options",
    ),
    "a seed of a list": (setting("seeds: [[1]]"), "defaults.seeds: [1]: input should be"),
    "a label of a table": (but("full: {}", 'full: {"": 3}'), "strategies.full.: unknown key"),
    "a label twice": (but("{full: {}, hift: {order: random}}", "[full, full]"), "a name is given"),
    "a name with a newline": ('name: "a\\nb"\n' + USUAL, "name: 'a\\nb' is not a name of 1 to 100"),
    "a name of a number": ("name: 3\n" + USUAL, "name: 3 is not a name"),
    "a model of a list": (but("tiny-bert", "[a]"), "models: missing: name at least one"),
    "a model of 5,000 letters": (but("tiny-bert", "m" * 5000), "too many for a file name"),
    "tasks of numbers": (but("[glue/sst2]", "[1, 2]"), "tasks: [1, 2] is not a table"),
    "a task of a list": (but("[glue/sst2]", "[[glue/sst2]]"), "tasks: [['glue/sst2']] is not a t"),
    "exclude of text": (USUAL + "exclude: abc\n", "exclude: 'abc' is not a list"),
    "nulls": ("defaults: null\ntasks: null\n", "defaults: None is not a table"),
}  # fmt: skip

GPT2 = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_layer": 1}
CONFIGS = {
    "cut short": '{"model_type": "gpt2"',
    "empty": "",
    "a list": "[]",
    "lists 100,000 deep": "[" * 100_000,
    "5,000 digits": f'{{"model_type": "gpt2", "n_layer": {DIGITS}}}',
    "no Unicode": "\ud800",
    "an unknown family": json.dumps(GPT2 | {"model_type": "gpt77"}),
    "a class that is none": json.dumps(GPT2 | {"architectures": ["GPT77"]}),
    "no class": json.dumps(GPT2 | {"architectures": None}),
    "text for a size": json.dumps(GPT2 | {"n_embd": "many"}),
    "a negative size": json.dumps(GPT2 | {"vocab_size": -3}),
    "no heads": json.dumps(GPT2 | {"n_head": 0}),
}

SCHEDULE, MEMORY = ("schedule", "gpt2-12x512"), ("memory", "gpt2-12x512")
OPTIONS = {
    (*SCHEDULE, "--lr", "nan"): "--lr': nan is not a positive number",
    (*SCHEDULE, "--lr", "1e400"): "--lr': inf is not a positive number",
    (*SCHEDULE, "--lr", "-1"): "--lr': -1.0 is not a positive number",
    (*SCHEDULE, "--steps", LARGE): "--steps'",
    (*SCHEDULE, "--steps", DIGITS): "--steps'",
    (*SCHEDULE, "--seed", "-1"): "--seed'",
    (*SCHEDULE, "--dwell", LARGE): "--dwell'",
    (*SCHEDULE, "--group-size", LARGE): "--group-size'",
    (*SCHEDULE, "--warmup-steps", LARGE): "--warmup-steps'",
    ("schedule", ""): "model : the folder has no config.json",
    ("plan", "m.yaml", "--budget", DIGITS): "is more than 1 EiB",
    ("plan", "m.yaml", "--budget", "nan"): "is not an amount of memory",
    ("plan", "m.yaml", "--budget", "-3GiB"): "is not an amount of memory",
    ("plan", "m.yaml", "--budget", ""): "is not an amount of memory",
    (*MEMORY, "--budget", "9" * 400): "is more than 1 EiB",
    (*MEMORY, "--seq-len", LARGE): "--seq-len'",
    (*MEMORY, "--batch-size", LARGE): "--batch-size'",
    (*MEMORY, "--strategy", ""): "unknown strategy ''",
    (*MEMORY, "--strategy", "lora", "--option", f"r={DIGITS}"): "Exceeds the limit (4300 digits)",
    (*MEMORY, "--strategy", "lora", "--option", f"r={DEEP}"): "nested too deeply",
    (*MEMORY, "--strategy", "lora", "--option", r'r="\ud800"'): "'utf-8' codec can't encode",
    (*MEMORY, "--strategy", "lora", "--option", "r"): "not NAME=VALUE",
    ("fit", "gpt2-12x512", "--budget", "9" * 400): "is more than 1 EiB",
    ("speed", "--batch-size", LARGE): "--batch-size'",
    ("speed", "--seq-len", "100000", "--sweeps", "1"): "is more than the 128 positions",
    ("dashboard", "--port", "99999999"): "--port'",
    ("dashboard", "--port", "-1"): "--port'",
    ("dashboard", "--tracking-uri", "foo://x"): "MLflow has no store foo://",
    ("run", "m.yaml", "--tracking-uri", "foo://x"): "MLflow has no store foo://",
    ("sync", "m.yaml", "--tracking-uri", "foo://x"): "MLflow has no store foo://",
    ("run", "m.yaml", "--limit", DIGITS): "--limit'",
    ("report", "m.yaml", "--reports", "m.yaml"): "m.yaml",
    ("plan", "m" * 5000): "File name too long",
    ("plan", "/dev/null"): "None is not a table",
    ("list", "\x1b[2J"): r"list \x1b[2J: no such list",
    ("tables", "memory", "--model", "gpt2-large", "--group-size", LARGE): "group",
}
ENVIRONMENT = {
    ("MLFLOW_TRACKING_URI", "foo://x", "sync"): "MLflow has no store foo://",
    ("HIFT_CACHE", "m.yaml", "run"): "m.yaml",
}

CASES = {
    **{
        f"matrix: {k}": (("plan", "m.yaml"), v[1], {"m.yaml": v[0]}, {})
        for k, v in MATRICES.items()
    },
    **{
        f"model: {k}": (("schedule", "model"), "model model: ", {"model/config.json": text}, {})
        for k, text in CONFIGS.items()
    },
    **{f"option: {' '.join(a[:20] for a in k)}": (k, v, {}, {}) for k, v in OPTIONS.items()},
    **{
        f"environment: {name}": ((command, "m.yaml"), said, {}, {name: value})
        for (name, value, command), said in ENVIRONMENT.items()
    },
}


@pytest.mark.parametrize(("arguments", "said", "files", "environment"), CASES.values(), ids=CASES)
def test_hostile_input(write, cli, monkeypatch, arguments, said, files, environment):
    registry.source("tiny-bert")  # which shows a progress bar where it is built first
    write(USUAL)
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(text.encode("utf-8", "surrogatepass"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    before = snapshot()
    code, out, err = cli(*arguments)
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err and err.count("\n") <= 3 and len(err) < 3000
    assert said in err and not {c for c in err if not c.isprintable()} - {"\n"}
    assert snapshot() == before, "something was written"


def test_a_full_disk_leaves_no_half_report(write, cli):
    """The limit on the size of a file stands for a full disk: the system refuses to write on."""
    write(USUAL)
    (spec,) = matrix.load(Path("m.yaml")).cells[0].runs()
    record.write(make_record(spec), Path("results/m") / f"{spec.run_id}.json")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        code, out, err = cli("report", "m.yaml")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (code, out) == (2, "") and err == "hift-bench: file too large\n"
    assert list(Path("reports").iterdir()) == []


def test_a_full_disk_below_stdout(cli, monkeypatch):
    with open("/dev/full", "w") as full, monkeypatch.context() as there:
        there.setattr(sys, "stdout", full)
        code, _, err = cli("list", "models")
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # so that it can be closed
    assert (code, err) == (2, "hift-bench: no space left on device\n")
