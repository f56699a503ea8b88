"""Bad models, data and records: exit 2, one line that names the place, nothing half-written."""

import json
import math
import shutil
from pathlib import Path

import pytest
from factories import make_record
from runs import USUAL

from benchmark.matrices import matrix
from benchmark.models import registry
from benchmark.records import record

MODELS = {
    "tiny-bort": "model 'tiny-bort': no such model, folder or Hub id (did you mean \"tiny-bert\"?)",
    "./none": "model './none': no such model, folder or Hub id",
    "empty": "model empty: the folder has no config.json, so it holds no model",
}


@pytest.mark.parametrize(("name", "said"), MODELS.items())
def test_model(write, refused, name, said):
    write(USUAL.replace("tiny-bert", name))
    Path("empty").mkdir()
    assert refused("run", "m.yaml").startswith(said)


def rows(n=40):
    return {"sentence": [f"the film {i} is good" for i in range(n)], "label": [0, 1] * (n // 2)}


def parquet(root, split="train"):
    return root / "nyu-mll" / "glue" / "sst2" / f"{split}-00000-of-00001.parquet"


def test_no_data_root(write, refused):
    write(USUAL.replace("twin", "mirror"))
    assert refused("run", "m.yaml").startswith("glue/sst2: data: mirror needs a folder laid out")
    said = "nowhere: has no dataset nyu-mll/glue, which glue/sst2 needs; it has none"
    assert refused("run", "m.yaml", "--data-root", "nowhere").endswith(said)


@pytest.mark.parametrize("damage", ["cut short", "text", "empty", "gone", "no such dataset"])
def test_damaged_mirror(write, refused, mirror, damage):
    write(USUAL.replace("twin", "mirror"))
    root = mirror(train=rows(), validation=rows())
    file = parquet(root)
    said = f"{file}: damaged or cut short: not a whole parquet file"
    if damage == "cut short":
        file.write_bytes(file.read_bytes()[:-20])
    elif damage == "text":
        file.write_text("sentence,label\n")
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "gone":
        shutil.rmtree(file.parent)
        said = f"{root}/nyu-mll/glue: no parquet files of config sst2 for glue/sst2"
    else:
        (root / "nyu-mll").rename(root / "openai")
        said = f"{root}: has no dataset nyu-mll/glue, which glue/sst2 needs; it has openai/glue"
    assert refused("run", "m.yaml", "--data-root", str(root)) == said


def changed(column, row, value):
    found = rows()
    found[column] = [*found[column][:row], value, *found[column][row + 1 :]]
    return found


ROWS = {
    "column missing": (
        {"sentence": rows()["sentence"]},
        "glue: glue/sst2: column label is missing; the",
    ),
    "label outside": (
        changed("label", 3, 5),
        "glue: row 3 of train: glue/sst2: column label: label 5 is",
    ),
    "label unknown": (
        changed("label", 7, -1),
        "glue: row 7 of train: glue/sst2: column label: label -1",
    ),
    "empty text": (
        changed("sentence", 9, ""),
        "glue: row 9 of train: glue/sst2: column sentence: empty",
    ),
    "no text": (
        changed("sentence", 2, None),
        "glue: row 2 of train: glue/sst2: column sentence: empty",
    ),
}


@pytest.mark.parametrize(("train", "said"), ROWS.values(), ids=ROWS)
def test_rows(write, refused_by_run, mirror, train, said):
    write(USUAL.replace("twin", "mirror"))
    root = mirror(train=train, validation={name: rows()[name] for name in train})
    assert refused_by_run("--data-root", str(root)).startswith(f"{root}/nyu-mll/{said}")


def test_data_that_only_reading_shows_to_be_damaged(write, refused_by_run, mirror):
    write(USUAL.replace("twin", "mirror"))
    root = mirror(train=rows(), validation=rows())
    whole = parquet(root).read_bytes()
    parquet(root).write_bytes(whole[:4] + b"\x00" * (len(whole) - 8) + whole[-4:])
    said = refused_by_run("--data-root", str(root))
    assert said.startswith(f"{root}/nyu-mll/glue: glue/sst2 cannot be read: ")


def test_a_mirror_whose_splits_differ_in_their_columns(write, refused_by_run, mirror):
    write(USUAL.replace("twin", "mirror"))
    root = mirror(train={"sentence": rows()["sentence"]}, validation=rows())
    said = refused_by_run("--data-root", str(root))
    missing = "glue/sst2: column label is missing; the data has sentence"
    assert said == f"{root}/nyu-mll/glue: {missing}"


def test_a_column_of_missing_texts(write, refused_by_run, mirror):
    write(USUAL.replace("twin", "mirror"))
    blank = {**rows(), "sentence": [math.nan] * len(rows()["label"])}
    said = refused_by_run("--data-root", str(mirror(train=blank, validation=blank)))
    assert said.endswith(": glue/sst2: column sentence: nan is no text")


def test_a_mirror_without_the_split(write, refused_by_run, mirror):
    write(USUAL.replace("twin", "mirror"))
    root = mirror(train=rows())
    said = f"{root}/nyu-mll/glue: glue/sst2: split validation does not exist; there are train"
    assert refused_by_run("--data-root", str(root)) == said


TOO_MUCH = {
    "too few rows": (
        "lr:",
        "train_examples: 41, lr:",
        "train_examples 41 and dev_examples 0 are more",
    ),
    "all held out": (
        "lr:",
        "dev_examples: 40, lr:",
        "train_examples 0 and dev_examples 40 are more",
    ),
}


@pytest.mark.parametrize(("old", "new", "said"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_too_few_rows(write, refused_by_run, mirror, old, new, said):
    write(USUAL.replace("twin", "mirror").replace(old, new))
    root = mirror(train=rows(), validation=rows())
    found = refused_by_run("--data-root", str(root))
    assert found.startswith(f"{root}/nyu-mll/glue: glue/sst2: {said}")


def test_models_that_only_loading_shows_to_be_bad(write, refused_by_run):
    write(USUAL.replace("tiny-bert", "me/unknown"))
    said = refused_by_run()
    assert said.startswith("model me/unknown: cannot be loaded: ") and "no network?" in said
    shutil.copytree(registry.source("tiny-bert").location, "mine")
    write(USUAL.replace("tiny-bert", "mine"))
    Path("mine/model.safetensors").unlink()
    assert refused_by_run().startswith("model mine: cannot be loaded: ")


STRATEGIES = {
    "too many units": ("order: random", "group_size: 7", "group_size 7 is more than the 6 units"),
    "no such target": (
        "hift: {order: random}",
        "lora: {targets: [qq]}",
        "strategy lora: targets: qq: ",
    ),
}


@pytest.mark.parametrize(("old", "new", "said"), STRATEGIES.values(), ids=STRATEGIES)
def test_strategies(write, refused_by_run, old, new, said):
    write(USUAL.replace("full: {}, ", "").replace(old, new))
    assert refused_by_run().startswith(said)


RECORDS = {
    "no JSON": (lambda text: text[:100], "unreadable record: "),
    "not text": (lambda text: b"\xff\xfe" + text.encode(), "unreadable record: "),
    "another version": (
        lambda text: text.replace('"schema_version": 1', '"schema_version": 99'),
        "schema_version: 99 is not 1, the one this version reads",
    ),
    "unknown key": (
        lambda text: text.replace('"scores"', '"skores"'),
        'skores: unknown key (did you mean "scores"?)',
    ),
    "unknown status": (
        lambda text: text.replace('"success"', '"sucess"'),
        "status: 'sucess' is unknown (did you mean \"success\"?)",
    ),
    "wrong type": (
        lambda text: text.replace('"n": 872', '"n": "all"'),
        "scores.n: 'all' is not int",
    ),
    "NaN": (lambda text: text.replace('"n": 872', '"n": NaN'), "unreadable record: NaN"),
    "infinity": (
        lambda text: text.replace('"n": 872', '"n": 1e400'),
        "unreadable record: 1e400 is too large a number",
    ),
    "5,000 digits": (
        lambda text: text.replace('"n": 872', f'"n": {"1" * 5000}'),
        "unreadable record: Exceeds the limit",
    ),
    "nested too deeply": (
        lambda text: text.replace('"n": 872', '"n": ' + "[" * 100_000),
        "unreadable record: nested too deeply",
    ),
    "half of a surrogate pair": (
        lambda text: text.replace('"success"', r'"\ud800"'),
        "unreadable record: 'utf-8' codec can't encode",
    ),
    "a spec that names no run": (
        lambda text: text.replace('"task": "glue/sst2"', '"task": null'),
        "spec.task: None is not str",
    ),
}


@pytest.mark.parametrize(("damage", "said"), RECORDS.values(), ids=RECORDS)
def test_records(write, cli, damage, said):
    """A damaged record is named and counts as missing; the command goes on."""
    write(USUAL)
    spec = matrix.load(Path("m.yaml")).cells[0].runs()[0]
    path = Path("results/m") / f"{spec.run_id}.json"
    record.write(make_record(spec), path)
    damaged = damage(path.read_text())
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    before = path.read_bytes()
    code, out, err = cli("status", "m.yaml", "--format", "json")
    assert code == 0 and json.loads(out)[0]["problems"] == "1 missing: not run yet"
    assert err.startswith(f"{path}: {said}") and err.endswith("; its run counts as missing\n")
    assert err.count("\n") == 1 and path.read_bytes() == before
