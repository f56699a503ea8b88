"""README.md and CONTRIBUTING.md hold what they say: every command and code block in them is run here.

A command that COMMANDS does not know fails, so that none is added without a way to try it.
"""

import collections
import csv
import json
import re
import shlex
import shutil
import statistics
import subprocess
from pathlib import Path

import pytest
from documents import ROOT, blocks, surroundings
from memory_cases import folder
from own_tasks import reviews, write_rows

import tasks.base
from benchmark.strategies import STRATEGIES

MIRROR_MATRIX = Path("benchmark/matrices/minilm_sst2.yaml")

# how each command is tried: `walk` in the documents' order, in a folder that holds the YAMLs, `run` as
# printed; `own` in this process, in a folder that holds rows, too; `call`, `schedule`, `fit`, `csv` and
# `pages` so in an empty folder, `speed` on a tiny model and `memory` without its budget; `make` by make -n;
# `mirror` up to the data root that is not there; `plan` in the checkout; `dashboard` in
# tests/tracking/test_dashboard.py; `shell` sets up the reader's own shell
COMMANDS = {
    "make demo": "make",
    "make test": "make",
    "make test SLOW=1": "make",
    "make lint types": "make",
    "make regress": "make",
    "make browser": "make",
    ". .venv/bin/activate": "shell",
    "hift-bench plan mine.yaml": "walk",
    "hift-bench run mine.yaml": "walk",
    "hift-bench status mine.yaml --format md": "walk",
    "hift-bench report mine.yaml": "walk",
    "hift-bench run own.yaml --keep-model": "own",
    "hift-bench list tasks": "call",
    "hift-bench list models": "call",
    "hift-bench list strategies": "call",
    "hift-bench list matrices": "call",
    f"hift-bench run {MIRROR_MATRIX} --data-root path/to/mirror": "mirror",
    "hift-bench dashboard": "dashboard",
    "hift-bench schedule roberta-large --group-size 4 --order random --steps 40 --format csv": "schedule",
    "hift-bench speed --strategies full,hift,lora": "speed",
    "hift-bench memory llama-7b --strategy hift:mixed_hi,lora:bf16_weights --batch-size 1 --seq-len 512 "
    "--budget 24GiB": "memory",
    "hift-bench fit llama-7b --budget 16GiB": "fit",
    "hift-bench tables --list": "call",
    "hift-bench tables trainable-parameters": "call",
    "hift-bench tables memory-llama-7b --format csv": "csv",
    "hift-bench tables --all --out reports/paper": "pages",
    "hift-bench plan benchmark/matrices/roberta_fewshot.yaml": "plan",
}


PRINTED = {
    "hift-bench list tasks": "glue/sst2",
    "hift-bench list models": "tiny-gpt2",
    "hift-bench list strategies": "hift",
    "hift-bench list matrices": "minilm_sst2",
    "hift-bench tables --list": "opt13b-superglue",
    "hift-bench tables trainable-parameters": "89.18",  # the abstract's mean
}
"""What stands in the output of each `call`."""


def commands() -> list[str]:
    """Every line of the shell blocks, in order, once."""
    lines = "".join(blocks("README.md", "sh") + blocks("CONTRIBUTING.md", "sh")).splitlines()
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def tried(how: str) -> list[str]:
    return [command for command in commands() if COMMANDS.get(command) == how]


def test_every_command_is_known_here_and_nothing_known_here_is_gone():
    assert set(commands()) == set(COMMANDS)


@pytest.mark.parametrize("command", tried("make"))
def test_make_knows_its_targets(command):
    done = subprocess.run(
        [*command.split(), "-n"], cwd=ROOT, env=surroundings(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def write_yamls(folder):
    """The README's YAML blocks as files, by the names in their first lines."""
    for text in blocks("README.md", "yaml"):
        name = re.match(r"# (\S+\.yaml)\n", text)
        (folder / name[1]).write_text(text, encoding="utf-8")


@pytest.mark.slow
def test_the_walk_leaves_two_scored_runs_a_report_and_tracking(call, tmp_path):
    """The runs are started from a shell; the other commands are called in this process."""
    write_yamls(tmp_path)
    printed = {}
    for command in tried("walk"):
        if not command.startswith("hift-bench run"):
            printed[command] = call(command)
            continue
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=surroundings(), capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert len(list((tmp_path / "results/mine").glob("*.json"))) == 2
    assert (tmp_path / "reports/mine/index.html").is_file() and (tmp_path / "mlflow.db").is_file()
    assert printed["hift-bench plan mine.yaml"].count("missing") == 2
    full, hift = printed["hift-bench status mine.yaml --format md"].splitlines()[2:]
    assert "| full |" in full and "| hift |" in hift and "1 of 1" in full and "1 of 1" in hift
    assert printed["hift-bench report mine.yaml"].strip() == "reports/mine/index.html"


@pytest.fixture
def call(cli, tmp_path, monkeypatch):
    """Call a command in an empty folder; returns what it wrote to stdout."""
    monkeypatch.chdir(tmp_path)

    def call(command, *more):
        code, out, err = cli(*shlex.split(command)[1:], *more)
        assert code == 0, err
        return out

    return call


@pytest.mark.slow
def test_own_data_are_trained_on_and_the_models_are_kept(call, in_process, tmp_path):
    in_process()
    write_yamls(tmp_path)
    rows = reviews()
    rows["mood"] = [{"sad": "bad", "glad": "good"}[mood] for mood in rows["mood"]]
    write_rows(tmp_path / "reviews.csv", rows)
    (command,) = tried("own")
    call(command)
    for path in (tmp_path / "results/own").glob("*.json"):
        done = json.loads(path.read_text(encoding="utf-8"))
        assert (
            done["inputs"]["dataset_revision"] == "unpinned"
            and "10% held out" in done["scores"]["split"]
        )
        kept = path.parent / done["model_folder"]
        assert {"model.safetensors", "tokenizer.json", "README.md"} <= {
            p.name for p in kept.iterdir()
        }
    assert len(list((tmp_path / "results/own/models").iterdir())) == 2


@pytest.mark.parametrize("command", tried("call"))
def test_lists_and_tables_show_what_they_are_for(command, call):
    assert PRINTED[command] in call(command)


def test_the_schedule_has_a_row_per_step(call):
    (command,) = tried("schedule")
    header, *rows = call(command).splitlines()
    assert header.startswith("step,sweep,group,units,lr") and len(rows) == 40


def test_a_table_as_csv_and_all_of_them_as_pages(call, monkeypatch):
    """Two stand for all; tests/tables has each."""
    from benchmark.tables import definition

    (as_csv,), (pages,) = tried("csv"), tried("pages")
    assert len(call(as_csv).splitlines()) == 26
    monkeypatch.setattr(definition, "names", lambda: ("memory-roberta-base", "glue-roberta"))
    call(pages)
    assert Path("reports/paper/index.html").is_file()


def test_speed_prints_its_ratios(call):
    (command,) = tried("speed")
    out = call(command, folder("gpt2"), *("--batch-size", "1", "--seq-len", "16", "--sweeps", "1"))
    assert "ratio_to_full" in out and "lora" in out


def test_plan_says_what_is_missing(tmp_path):
    (command,) = tried("plan")
    empty = surroundings() | {"HF_HOME": str(tmp_path)}  # whatever this machine's own cache holds
    done = subprocess.run(command.split(), cwd=ROOT, env=empty, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fewshot-trec-k512" in done.stdout and "missing weights" in done.stderr


@pytest.mark.slow
def test_memory_says_what_the_readme_says(call):
    """Without the budget, for which tests/memory searches on smaller models."""
    (command,) = tried("memory")
    hift, lora = json.loads(call(command.replace("--budget 24GiB", "--format json")))
    gib = [n / 2**30 for n in (lora["peak_bytes"], hift["host_bytes"], hift["peak_bytes"])]
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert (
        f"takes {gib[0]:.1f} GiB. HiFT keeps {gib[1]:.1f} GiB of fp32 weights and optimizer state on the "
        f"host; on the device the answer is {gib[2]:.1f} GiB."
    ) in text


@pytest.mark.slow
def test_fit_finds_what_the_page_has(call):
    (command,) = tried("fit")
    row = json.loads(call(command, "--most", "1", "--format", "json"))[0]
    assert [f"{row[key]}" for key in SIZES] == [llama_7b("16")[key] for key in SIZES]


SIZES = ("device_bytes", "host_bytes")


def llama_7b(budget):
    """Its cell of reports/fit, as text."""
    with (ROOT / "reports/fit/cells.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "llama-7b"]
    return next(row for row in rows if row["budget_gib"] == budget and not row["host_gib"])


def test_what_fit_says_of_llama_7b_stands_on_the_page():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    resident, streamed = (
        [f"{int(llama_7b(budget)[key]) / 2**30:.2f} GiB" for key in SIZES] for budget in ("16", "8")
    )
    assert f"takes {resident[0]} of a 16 GiB card and {resident[1]} of host memory" in text
    assert f"is enough: {streamed[0]}, and {streamed[1]} on the host" in text
    assert (llama_7b("16")["weights"], llama_7b("8")["weights"]) == ("resident", "stream")


def test_the_readme_counts_tasks_and_strategies_right():
    assert len(tasks.base.names()) > 50 and len(STRATEGIES) > 43  # HiFT, full, LoRA and over forty


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


def test_a_mirror_that_is_not_there_is_refused_by_name(tmp_path):
    (tmp_path / MIRROR_MATRIX.parent).mkdir(parents=True)
    shutil.copy(ROOT / MIRROR_MATRIX, tmp_path / MIRROR_MATRIX)
    (command,) = tried("mirror")
    done = subprocess.run(
        command.split(), cwd=tmp_path, env=surroundings(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "path/to/mirror" in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_training_loop_in_the_readme_trains_every_unit(capsys):
    (loop,) = blocks("README.md", "python")
    exec(compile(loop, "README.md", "exec"), {"__name__": "readme"})
    steps = re.findall(r"loss (\S+) trained (\S+)", capsys.readouterr().out)
    losses = [float(loss) for loss, _ in steps]
    assert [unit for _, unit in steps[:6]] == [
        "embeddings",
        *(f"1.layers.{i}" for i in range(4)),
        "head",
    ]
    assert losses[-1] < 0.75 * losses[0]


def test_the_readme_s_links_are_existing_files():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://|#)([^)]+)\)", text)
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_s_results_are_those_of_the_report():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- minilm_sst2:begin -->")[2].partition("<!-- minilm_sst2:end -->")[0]
    rows = [line for line in shown.splitlines() if line.startswith("|")][2:]
    assert rows
    report = (ROOT / "reports/minilm_sst2/report.md").read_text(encoding="utf-8")
    for row in rows:
        label, score = (cell.strip() for cell in row.strip("|").split("|"))
        assert f"| {label} | {score.strip('*')} |" in report, "in the table on training"
        answer = next(line for line in report.splitlines() if line.startswith(f"| {label} |"))
        assert ("**" in answer) == score.startswith("**"), label


def test_the_intervals_in_choosing_settings_are_those_of_reports():
    text = (ROOT / "docs/choosing.md").read_text(encoding="utf-8").replace("\u2212", "-")
    said = re.findall(r"\((-?[\d.]+) to (-?[\d.]+)[,;)]", " ".join(text.split()))
    found = set()
    for path in ROOT.glob("reports/*/differences.csv"):
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                ends = [round(100 * float(row[key]), 1) + 0.0 for key in ("low", "high")]
                found |= {tuple(ends), (-ends[1], -ends[0])}
    assert len(said) > 8
    assert [pair for pair in said if tuple(map(float, pair)) not in found] == []


def test_the_readme_s_intervals_are_those_of_the_report():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    said = re.findall(
        r"- m = (\d)(?:, dwell = (\d))?: ([\d.]+) points below[^(]*\(([\d.]+) to ([\d.]+)\)", text
    )
    with open(ROOT / "reports/minilm_sst2/differences.csv", newline="") as file:
        found = {(row["better"], row["other"]): row for row in csv.DictReader(file)}
    assert {m for m, *_ in said} == {"1", "2", "4"}
    for m, dwell, *points in said:
        row = found["full", f"hift_m{m}" + (f"_dwell{dwell}" if dwell else "")]
        assert points == [f"{100 * float(row[key]):.1f}" for key in ("mean", "low", "high")]


def test_the_readme_s_shares_of_operations_and_memory_are_those_of_the_records():
    """Operations are a mean over seeds, memory the largest of them, as the README says."""
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    shares = r"- m = (\d)(?:, dwell = (\d))?: [^%]*? at (\d+) % (?:of the operations )?and (\d+) %"
    flops, peaks = collections.defaultdict(list), collections.defaultdict(list)
    for path in ROOT.glob("results/minilm_sst2/*.json"):
        done = json.loads(path.read_text(encoding="utf-8"))
        flops[done["spec"]["label"]].append(done["train"]["flops"])
        peaks[done["spec"]["label"]].append(done["memory"]["peak_allocated"])
    said = re.findall(shares, text)
    assert len(said) == 5
    for m, dwell, *percents in said:
        label = f"hift_m{m}" + (f"_dwell{dwell}" if dwell else "")
        operations = statistics.fmean(flops[label]) / statistics.fmean(flops["full"])
        memory = max(peaks[label]) / max(peaks["full"])
        assert percents == [f"{100 * share:.0f}" for share in (operations, memory)], label
