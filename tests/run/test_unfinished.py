"""An evaluation that was broken off goes on after its last whole batch, and ends as one that was not."""

import json
import shutil

import pytest
import torch
from factories import make_record, make_spec

from benchmark.run import evaluation, recipe
from benchmark.run.module import FineTuning
from benchmark.run.unfinished import Scored, Trained, Unfinished

USUAL = {
    "model": "tiny-gpt2",
    "data": "twin",
    "epochs": None,
    "max_steps": 7,
    "train_examples": 44,
    "eval_examples": 30,
    "eval_batch_size": 4,
    "batch_size": 8,
    "max_length": 48,
    "lr": 1e-3,
}


def lines_of(folder, record):
    return (folder / record.predictions).read_text()


@pytest.fixture
def again(monkeypatch):
    """Start a run again; it may train no more. Returns its record and the rows of each batch it scored."""

    def again(spec, folder, scratch):
        def refuse(*_):
            raise AssertionError("it trains again")

        predict, scored = evaluation.predict_batch, []

        def counting(model, adapter, batch, *rest):
            scored.append(len(batch.get("counts", batch["input_ids"])))
            return predict(model, adapter, batch, *rest)

        monkeypatch.setattr(FineTuning, "training_step", refuse)
        monkeypatch.setattr(evaluation, "predict_batch", counting)
        record = recipe.run(spec, folder, scratch=scratch)
        monkeypatch.undo()
        return record, scored

    return again


def test_killed_in_the_middle_of_the_evaluation(tmp_path, again, monkeypatch):
    """A run goes on from a copy of its files, taken as they stood: kill -9 would have left the same."""
    spec = make_spec(**USUAL, strategy="hift", precision="mixed_hi")
    folder, scratch, left = (tmp_path / name for name in ("results", "scratch", "left"))
    add, seen = Unfinished.add, []

    def copy_after_the_third(self, batch):
        add(self, batch)
        seen.append(batch)
        if len(seen) == 3:
            assert not folder.exists()
            shutil.copytree(scratch, left)

    monkeypatch.setattr(Unfinished, "add", copy_after_the_third)
    whole = recipe.run(spec, folder, scratch=scratch)
    monkeypatch.undo()
    assert len(seen) == 8 and not list(scratch.iterdir()), "nothing is left beside the results"
    (kept,) = left.iterdir()
    with open(kept / "predictions.jsonl", "a") as file:
        file.write('{"ids": ["0123')  # as a kill in the middle of writing leaves it

    record, scored = again(spec, tmp_path / "again", left)
    assert len(scored) == 8 - 3 and sum(scored) == 30 - 3 * 4
    assert record.scores == whole.scores and record.params == whole.params
    assert lines_of(tmp_path / "again", record) == lines_of(folder, whole)
    assert record.memory.eval_peak == whole.memory.eval_peak
    assert record.train.final_loss == whole.train.final_loss and record.train.steps == 7
    assert record.times.resumed and not whole.times.resumed
    assert (record.times.resumed_from, whole.times.resumed_from) == ([7], [])
    assert (tmp_path / "again" / record.curve).read_text().count("\n") == 8
    assert not list(left.iterdir()), "nothing is left beside the results"


def broken_off(spec, folder, scratch, monkeypatch, after=2):
    """Start a run and stop it once `after` batches are scored."""
    predict, calls = evaluation.predict_batch, iter(range(after))

    def stop(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return predict(*arguments)

    monkeypatch.setattr(evaluation, "predict_batch", stop)
    with pytest.raises(KeyboardInterrupt):
        recipe.run(spec, folder, scratch=scratch)
    monkeypatch.undo()


@pytest.mark.parametrize(
    "fields",
    [
        *(
            pytest.param(fields, marks=pytest.mark.slow)
            for fields in (
                {"strategy": "full", "precision": "bf16"},
                {"strategy": "lora", "precision": "bf16"},
                {"strategy": "head"},
                {"strategy": "hift", "select": "best", "dev_examples": 10},
                {"strategy": "lora", "task": "mezo/sst2"},
            )
        ),
        {"strategy": "hift", "precision": "mixed_hi", "task": "mezo/sst2"},  # tied weights
        {"strategy": "none", "task": "mezo/sst2", "demonstrations": 2}
        | dict.fromkeys(("lr", "max_steps", "batch_size")),
    ],
    ids=lambda fields: "-".join(map(str, fields.values())),
)
def test_every_strategy_goes_on_with_the_weights_it_trained(tmp_path, monkeypatch, again, fields):
    usual = {name: value for name, value in (USUAL | fields).items() if value is not None}
    spec = make_spec(**({"lr": None, "epochs": None} | usual | {"max_length": 96}))
    folder, scratch = tmp_path / "results", tmp_path / "scratch"
    broken_off(spec, folder, scratch, monkeypatch)
    record, scored = again(spec, folder, scratch)
    whole = recipe.run(spec, tmp_path / "whole")
    assert len(scored) == 6
    assert record.scores == whole.scores
    assert lines_of(folder, record) == lines_of(tmp_path / "whole", whole)


def test_the_weights_after_going_on_are_the_trained_ones_to_the_bit(tmp_path, monkeypatch):
    spec = make_spec(**USUAL, strategy="hift", precision="mixed_hi")
    ends = []
    real = evaluation.predictions

    def look(model, *rest, **named):
        ends.append({n: p.detach().clone() for n, p in model.named_parameters()})
        return real(model, *rest, **named)

    monkeypatch.setattr(evaluation, "predictions", look)
    monkeypatch.setattr(Unfinished, "remove", lambda self: None)
    resumed = [
        recipe.run(spec, tmp_path, scratch=scratch).times.resumed
        for scratch in (None, tmp_path / "scratch", tmp_path / "scratch")
    ]
    assert resumed == [False, False, True]
    for name, first in ends[0].items():
        assert all(end[name].dtype == first.dtype for end in ends)
        assert all(torch.equal(end[name], first) for end in ends)


IDENTITY = {"settings": "0123", "code": "4567", "inputs": {"model": "m", "rows": [1, None]}}
TRAINED = Trained(
    **{name: getattr(make_record(), name) for name in ("train", "params", "memory")},
    evaluations=[],
    curve="step\n",
)


@pytest.fixture
def kept(tmp_path):
    """A folder with a training and two batches; what opens it for other inputs; the model."""
    model = torch.nn.Linear(2, 2)
    work = Unfinished(tmp_path / "kept", IDENTITY)
    work.keep(TRAINED, model, {"weight"})
    for ids in (["a", "b"], ["c"]):
        work.add(Scored(ids=ids, predictions=[0] * len(ids), peak=7))
    return tmp_path / "kept"


def test_only_what_trained_is_kept_and_put_back(kept):
    model = torch.nn.Linear(2, 2)
    bias = model.bias.detach().clone()
    assert Unfinished(kept, IDENTITY).restore(model) == TRAINED
    assert torch.equal(model.bias, bias)
    found = Unfinished(kept, IDENTITY).scored([["a", "b"], ["c"], ["d"]])
    assert [batch.ids for batch in found] == [["a", "b"], ["c"]]


@pytest.mark.parametrize("changed", [["code"], ["settings", "inputs"]])
def test_what_was_made_with_something_else_is_not_used_and_that_is_said(kept, changed):
    notes, weights = [], torch.nn.Linear(2, 2)
    before = weights.weight.detach().clone()
    other = IDENTITY | dict.fromkeys(changed, "another")
    assert Unfinished(kept, other, notes.append).restore(weights) is None
    assert torch.equal(weights.weight, before) and not kept.exists()
    (note,) = notes
    assert note.startswith("the run starts again: ") and note.endswith(" and ".join(changed))


def test_a_checkpoint_that_is_cut_at_any_byte_is_noticed_and_said_in_one_line(kept):
    path, model = kept / "checkpoint.pt", torch.nn.Linear(2, 2)
    whole = path.read_bytes()
    ends = {*range(0, len(whole), 23), *range(len(whole) - 100, len(whole))}
    for length in sorted(ends):
        notes = []
        kept.mkdir(exist_ok=True)
        path.write_bytes(whole[:length])
        assert Unfinished(kept, IDENTITY, notes.append).restore(model) is None, length
        assert not kept.exists() and len(notes) == 1 and "\n" not in notes[0]
        assert notes[0].startswith("the run starts again: ")


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda text: text[:-1], 1),
        (lambda text: text[:-12], 1),
        (lambda text: text + "{", 2),
        (lambda text: "x" + text, 0),
        (lambda text: "", 0),
    ],
)
def test_scoring_goes_on_after_the_last_whole_line(kept, damage, left):
    path = kept / "predictions.jsonl"
    path.write_text(damage(path.read_text()))
    work, batches = Unfinished(kept, IDENTITY), [["a", "b"], ["c"], ["d"]]
    assert len(work.scored(batches)) == left
    for ids in batches[left:]:
        work.add(Scored(ids=ids, predictions=[1] * len(ids), peak=8))
    assert [batch.ids for batch in work.scored(batches)] == batches
    assert len(path.read_text().splitlines()) == 3 and json.loads(path.read_text().splitlines()[2])


def test_batches_of_other_rows_do_not_count(kept):
    assert Unfinished(kept, IDENTITY).scored([["a"], ["b", "c"]]) == []


def test_a_disk_that_takes_nothing_does_not_hurt_the_run(tmp_path):
    (tmp_path / "file").write_text("in the way")
    work = Unfinished(tmp_path / "file" / "kept", IDENTITY)
    with pytest.warns(UserWarning, match="start anew"):
        work.keep(TRAINED, torch.nn.Linear(2, 2), {"weight"})
    work.add(Scored(ids=["a"], predictions=[0], peak=1))
    assert work.scored([["a"]]) == []


def test_a_folder_that_an_orphan_of_a_killed_runner_removed_does_not_hurt_the_run(kept):
    work = Unfinished(kept, IDENTITY)
    assert work.restore(torch.nn.Linear(2, 2)) == TRAINED
    Unfinished(kept, IDENTITY).remove()  # the orphan has written its record
    with pytest.warns(UserWarning, match="start anew"):
        work.add(Scored(ids=["d"], predictions=[0], peak=1))
    work.add(Scored(ids=["e"], predictions=[0], peak=1))
    assert not kept.exists()


def test_without_a_folder_nothing_is_kept(tmp_path):
    work = Unfinished(None, IDENTITY)
    work.keep(TRAINED, torch.nn.Linear(2, 2), {"weight"})
    work.add(Scored(ids=["a"], predictions=[0], peak=1))
    assert work.restore(torch.nn.Linear(2, 2)) is None and work.scored([["a"]]) == []
    assert not list(tmp_path.iterdir())
