"""A matrix on data of the user's own: names, what is refused, what a plan foresees, and a run's record."""

import json
import math
import shutil
from pathlib import Path

import pytest
from hub_caches import cache_dataset
from own_tasks import reviews, write_rows, write_task

from benchmark.matrices import matrix, planning, rescore
from benchmark.records import record
from benchmark.report import tables
from tasks import own

MATRIX = """\
defaults: {model: tiny-bert, max_steps: 2, batch_size: 4, max_length: 16, lr: 1.0e-3}
tasks: [tasks/mine.yaml]
strategies: {full: {}}
"""


@pytest.fixture
def mine(write):
    """The matrix in the current folder, and the task in a folder beside it."""
    write(MATRIX)
    return write_task(Path("tasks/mine.yaml"))


def spec():
    return matrix.load(Path("m.yaml")).cells[0].runs()[0]


def test_the_spec_names_the_file_and_its_hash_follows_contents_alone(mine):
    first = spec()
    assert (first.task, first.task_file, first.data) == ("own/mine", "tasks/mine.yaml", "files")
    shutil.copytree("tasks", "elsewhere/tasks")
    shutil.copy("m.yaml", "elsewhere/m.yaml")
    moved = matrix.load(Path("elsewhere/m.yaml")).cells[0].runs()[0]
    assert moved.task_file != first.task_file and moved.hash == first.hash
    write_rows(Path("tasks/rows.jsonl"), reviews(39))
    assert spec().hash != first.hash and spec().run_id == first.run_id


REFUSED = {
    "a twin": (
        "max_steps",
        "data: twin, max_steps",
        "m.yaml: defaults.data: twin: own/mine reads its own files: data: files",
    ),
    "files of a shipped task": (
        "[tasks/mine.yaml]",
        "{glue/sst2: {data: files}}",
        "m.yaml: tasks.glue/sst2.data: files: glue/sst2 has a dataset on the Hub: data: hub, mirror or twin",
    ),
    "one name twice": (
        "tasks/mine.yaml",
        "tasks/mine.yaml, b/Mine.yml",
        "m.yaml: tasks.b/Mine.yml: would be named own/Mine, as tasks/mine.yaml is: rename one",
    ),
    "no such task": ("mine.yaml", "mien.yaml", "tasks/mien.yaml: no such file or directory"),
}


@pytest.mark.parametrize(("old", "new", "said"), REFUSED.values(), ids=REFUSED)
def test_refused(mine, write, refused, old, new, said):
    write_task(Path("b/Mine.yml"))
    write(MATRIX.replace(old, new, 1))
    assert refused("plan", "m.yaml").startswith(said)


def test_yaml_that_is_not_sound_is_refused_by_line(mine, refused):
    mine.write_text("adapter: classification\nlabel: a\nlabel: b\n")
    assert refused("plan", "m.yaml") == "tasks/mine.yaml: line 3: key 'label' is given twice"


def test_a_plan_foresees_missing_files_and_columns(mine, cli, refused):
    (planned,) = json.loads(cli("plan", "m.yaml", "--format", "json")[1])
    assert (planned["state"], planned["lacks"]) == ("missing", None)
    write_rows(Path("tasks/rows.jsonl"), {"text": ["a", "b"]})
    code, _, err = cli("plan", "m.yaml")
    column = "tasks/rows.jsonl: own/mine: column mood is missing; the data has text"
    assert code == 0 and f"refused: {column} (for full)" in err
    Path("tasks/rows.jsonl").rename("tasks/row.jsonl")
    code, out, err = cli("plan", "m.yaml", "--format", "json")
    said = 'tasks/rows.jsonl: no such file (did you mean "row.jsonl"?)'
    assert json.loads(out)[0]["lacks"] == "data" and f"missing data: {said}" in err
    assert refused("run", "m.yaml") == said


def test_epochs_count_the_rows_of_the_file(mine, write):
    write(MATRIX.replace("max_steps: 2", "epochs: 2"))
    assert planning.predicted_steps(spec()) == 18  # 36 of 40 rows, by 4
    write_rows(Path("tasks/eval.csv"), reviews(6, start=90))
    write_task(mine, data={"train": "rows.jsonl", "eval": "eval.csv"})
    assert planning.predicted_steps(spec()) == 20
    write_task(mine, data={"train": "rows.jsonl", "shots": {"per": "mood", "count": 8}})
    assert planning.predicted_steps(spec()) == 8  # 8 rows of each of 2 classes
    write_rows(Path("tasks/rows.jsonl"), {"text": [], "mood": []})
    assert planning.predicted_steps(spec()) == 0


def test_a_run_says_unpinned_and_what_was_held_out(mine, go, in_process, tmp_path):
    in_process()
    shutil.copytree("tasks", tmp_path / "tasks")
    outcome, _ = go(MATRIX)
    assert dict(outcome.ended) == {"trained": 1}, outcome
    (done,) = record.load_all(tmp_path / "results/made_up")
    assert done.scores.split == "train[10% held out for evaluation by seed 0]"
    inputs = done.inputs
    assert (inputs.dataset_source, inputs.dataset_revision) == ("files", "unpinned")
    assert (inputs.read_train, inputs.examples_train + inputs.examples_eval) == (40, 40)
    assert inputs.overlap_eval == record.Overlap(exact=0.0, group=0.0)
    rows = {row[0]: row[1] for row in tables.provenance_table([done]).rows}
    assert rows["data: own/mine/files"].startswith("files, revision unpinned; ")
    loaded = matrix.load(tmp_path / "made_up.yaml")
    (rescored,) = rescore.rescore(loaded, tmp_path / "results")
    assert rescored.new == done.scores
    # the same rows in another format, given for evaluation, are other examples of another run
    write_rows(tmp_path / "tasks/eval.csv", reviews(6, start=90))
    write_task(tmp_path / "tasks/mine.yaml", data={"train": "rows.jsonl", "eval": "eval.csv"})
    go(MATRIX)
    (again,) = record.load_all(tmp_path / "results/made_up")
    assert (again.scores.split, again.scores.n) == ("eval", 6) and again.spec_hash != done.spec_hash


def test_a_task_that_changed_after_the_plan_is_refused(mine, in_process):
    from benchmark.errors import UserError
    from benchmark.run import recipe

    planned = spec()
    write_rows(Path("tasks/rows.jsonl"), reviews(39))
    with pytest.raises(UserError, match="changed after the run was planned"):
        recipe.run(planned, Path("results"))
    assert not Path("results").exists()


CHAT = """\
defaults: {model: tiny-gpt2, max_steps: 4, batch_size: 4, max_length: 96, lr: 1.0e-2, keep: last}
tasks: [tasks/talks.yaml]
strategies: {hift: {}, lora: {}}
"""
TALKS = (
    "adapter: chat\ndata: {train: talks.jsonl, eval: eval.jsonl}\nmessages: talk\ntemplate: plain\n"
)
SCORED = (41, 1234, 77)


def talk(n):
    first = [{"from": "human", "value": f"Add {n}"}, {"from": "gpt", "value": f"that is {n + 1}"}]
    return [*first, {"from": "human", "value": "Thanks"}, {"from": "gpt", "value": "gladly"}]


def perplexity(model, tokenizer):
    """Of the answers in the SCORED conversations, one by one, from their texts written out."""
    import torch

    def tokens(pieces):
        return tokenizer("".join(pieces), add_special_tokens=False)["input_ids"]

    losses = []
    start, end = tokenizer.bos_token or "", tokenizer.eos_token
    for n in SCORED:
        first = f"{start}### User:\nAdd {n}\n\n### Assistant:\n"
        second = "\n\n### User:\nThanks\n\n### Assistant:\n"
        pieces = [first, f"that is {n + 1}{end}", second, f"gladly{end}"]
        ids, ends = tokens(pieces), [len(tokens(pieces[: k + 1])) for k in range(4)]
        with torch.no_grad():
            log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        for at in (*range(ends[0], ends[1]), *range(ends[2], ends[3])):
            losses.append(-float(log_probs[at - 1, ids[at]]))
    return math.exp(sum(losses) / len(losses))


@pytest.mark.slow
def test_the_perplexity_of_a_chat_run_is_that_of_its_kept_model(go, in_process, tmp_path):
    """Scored anew by transformers and peft alone."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    in_process()
    write_rows(tmp_path / "tasks/talks.jsonl", {"talk": [talk(n) for n in range(20)]})
    write_rows(tmp_path / "tasks/eval.jsonl", {"talk": [talk(n) for n in SCORED]})
    metric = "metrics: [perplexity]\nmain: perplexity\nhigher_is_better: false\n"
    (tmp_path / "tasks/talks.yaml").write_text(TALKS + metric)
    assert dict(go(CHAT)[0].ended) == {"trained": 2}
    records = {r.spec["strategy"]: r for r in record.load_all(tmp_path / "results/made_up")}
    kinds = {"hift": AutoModelForCausalLM, "lora": AutoPeftModelForCausalLM}
    for strategy, kind in kinds.items():
        folder = tmp_path / "results/made_up" / records[strategy].model_folder
        found = perplexity(
            kind.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
        )
        assert records[strategy].scores.main == pytest.approx(found, rel=1e-4)
    assert records["hift"].scores.main != pytest.approx(records["lora"].scores.main, rel=1e-3)


@pytest.mark.parametrize("known", [True, False])
def test_steps_of_an_epoch_are_told_by_the_rows_that_are_here(write, home, known):
    """40 rows in batches of four; a dataset of the user's own has no official sizes."""
    hub = {"id": "me/mine", "splits": {"train": "a", "eval": "b"}}
    task = own.load(write_task(Path("tasks/mine.yaml"), data=..., dataset=hub))
    if known:
        files = {
            name: write_rows(home / f"{name}.parquet", reviews(n))
            for name, n in (("a", 40), ("b", 8))
        }
        cache_dataset(home, task.dataset, files={name: [str(file)] for name, file in files.items()})
    write(MATRIX.replace("max_steps: 2", "epochs: 1"))
    assert planning.predicted_steps(spec()) == (10 if known else 0)
    assert planning.rows_of(spec(), "eval") == (8 if known else 0)
