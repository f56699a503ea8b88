"""A training that is broken off goes on from its last checkpoint, and ends as one that is not."""

import csv
import dataclasses

import pytest
import torch
from factories import make_spec

from benchmark.run import recipe
from benchmark.strategies import STRATEGIES, strategy_class

SMALL = {
    "model": "tiny-gpt2",
    "data": "twin",
    "max_steps": 5,
    "epochs": None,
    "train_examples": 12,
    "eval_examples": 8,
    "eval_batch_size": 8,
    "batch_size": 4,
    "max_length": 32,
    "lr": 1e-3,
    "checkpoint_every": 1,
}


class Broken(Exception):
    """Stands for whatever ends the process."""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Run `spec` in a folder; `until` breaks it off when this step is done. Returns what it left behind."""

    def start(spec, name, until=None):
        ends, notes, evaluate = [], [], recipe.evaluate

        def look(model, *rest, **named):
            ends.append({n: p.detach().clone() for n, p in model.named_parameters()})
            return evaluate(model, *rest, **named)

        def report(row):
            if row["event"] == "note":
                notes.append(row["note"])
            if row.get("step") == until and until is not None:
                raise Broken

        monkeypatch.setattr(recipe, "evaluate", look)
        folder = tmp_path / name
        try:
            record = recipe.run(spec, folder, report, scratch=folder / "scratch")
        except Broken:
            return None, {}, "", [], notes
        finally:
            monkeypatch.undo()
        with open(folder / record.curve, newline="") as file:
            timings = {"seconds", "step_ms"}
            curve = [
                [row[key] for key in row if key not in timings] for row in csv.DictReader(file)
            ]
        predicted = (folder / record.predictions).read_text()
        return record, ends[0], predicted, curve, notes

    return start


def same(one, other):
    """Whether two runs ended alike to the last bit, but for their times."""
    (a, weights_a, predicted_a, curve_a, _), (b, weights_b, predicted_b, curve_b, _) = one, other
    assert curve_a == curve_b and predicted_a == predicted_b
    assert weights_a.keys() == weights_b.keys()
    for name, weight in weights_a.items():
        assert weight.dtype == weights_b[name].dtype and torch.equal(weight, weights_b[name]), name
    assert (a.scores, a.params) == (b.scores, b.params)
    assert (a.train.examples, a.train.tokens, a.train.flops) == (
        *(b.train.examples, b.train.tokens, b.train.flops),
    )
    untimed = [dataclasses.replace(each, seconds=0) for each in a.evaluations]
    assert untimed == [dataclasses.replace(each, seconds=0) for each in b.evaluations]
    for peak in ("optimizer_state", "master", "host_state", "gradients"):
        assert getattr(a.memory, peak) == getattr(b.memory, peak)


@pytest.mark.parametrize(
    "fields",
    [
        {"strategy": "hift", "precision": "mixed_hi", "accumulate": 2},
        {"strategy": "hift", "options": {"partition": "rows:4096", "group_size": 2}},
        {"strategy": "galore", "options": {"rank": 2, "update_proj_gap": 3}},
        *(
            pytest.param(fields, marks=pytest.mark.slow)
            for fields in (
                {"strategy": "full", "optimizer": "adafactor", "group_by_length": True},
                {"strategy": "lora", "select": "best_loss", "dev_examples": 6, "eval_every": 3},
                {"strategy": "adalomo", "precision": "bf16_weights"},
            )
        ),
    ],
    ids=lambda fields: "-".join(map(str, fields.values())),
)
def test_a_training_that_is_broken_off_ends_with_the_same_bytes(start, tmp_path, fields):
    """Checkpoints within an epoch (of three batches) and at its end; each start goes on from the last one."""
    spec = make_spec(**SMALL | fields)
    whole = start(spec, "whole")
    for step in (2, 4):
        assert start(spec, "broken", until=step)[0] is None
    last = start(spec, "broken")
    same(whole, last)
    assert last[0].times.resumed_from == [1, 3] and whole[0].times.resumed_from == []
    assert list((tmp_path / "broken" / "scratch").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in STRATEGIES if strategy_class(n).trains])
def test_every_strategy_goes_on_or_says_that_it_starts_again(start, name, read_once):
    kind = strategy_class(name)
    options = {"dwell": 1} if "dwell" in kind.Options.model_fields else {}
    place = {"model": "tiny-bert"}
    if kind.needs_answers:
        place = {"task": "generation/gsm8k", "max_length": 128, "too_long": "truncate"}
    spec = make_spec(**SMALL | place | {"strategy": name, "options": options})
    whole = start(spec, "whole")
    assert start(spec, "broken", until=4)[0] is None
    last = start(spec, "broken")
    same(whole, last)
    assert last[0].times.resumed_from == ([] if kind.starts_again else [3])
    told = [note for note in whole[-1] if "starts again" in note]
    assert told == [told[0]] and kind.starts_again in told[0] if kind.starts_again else not told
