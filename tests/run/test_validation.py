"""Looks along a training: what they see, what they cost, and the weights that are kept."""

import copy
import dataclasses
import functools
import itertools
from typing import NamedTuple

import pytest
import torch
from factories import make_spec

import tasks.base
from benchmark.data import examples
from benchmark.models import registry
from benchmark.records import record as records
from benchmark.run import fit, recipe, validation
from benchmark.run.settings import data_settings

USUAL = {
    "model": "tiny-bert",
    "data": "twin",
    "epochs": None,
    "max_steps": 10,
    "lr": 2e-2,
    "train_examples": 100,
    "eval_examples": 20,
    "dev_examples": 30,
    "eval_batch_size": 8,
    "max_length": 32,
}
ADAPTER = tasks.base.adapter(tasks.base.load("glue/sst2"))


def spec_of(**fields):
    return make_spec(**(USUAL | fields))


class Looked(NamedTuple):
    """A run's record, its curve, and the weights at each evaluation and at the end."""

    record: records.RunRecord
    curve: dict[str, list]
    weights: dict[int | str, dict[str, torch.Tensor]]


def watched(spec, folder):
    """Run a spec."""
    weights = {}

    class Watched(validation.Validation):
        def _evaluate(self, module):
            evaluation = super()._evaluate(module)
            weights[evaluation.step] = copy.deepcopy(module.model.state_dict())
            return evaluation

        def on_fit_end(self, trainer, module):
            super().on_fit_end(trainer, module)
            weights["end"] = copy.deepcopy(module.model.state_dict())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "Validation", Watched)
        record = recipe.run(spec, folder)
    return Looked(record, records.read_curve(folder / record.curve), weights)


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    """`watched`, once for each spec."""
    found = {}

    def looked(spec):
        if spec.hash not in found:
            found[spec.hash] = watched(spec, tmp_path_factory.mktemp("looked"))
        return found[spec.hash]

    return looked


@functools.cache
def data():
    """The rows of every spec here."""
    tokenizer = registry.load_tokenizer(registry.source(USUAL["model"]))
    return examples.load(data_settings(spec_of()), ADAPTER, tokenizer)


@functools.cache
def network():
    source = registry.source(USUAL["model"])
    return registry.load_model(source, ADAPTER.head, 0, **ADAPTER.model_arguments()).eval()


def alone(weights, part):
    """Loss and accuracy of the weights on the rows, one example at a time."""
    rows, model = getattr(data(), part), network()
    model.load_state_dict(weights)
    losses, right = [], 0
    with torch.inference_mode():
        for ids, label in zip(rows.encoded["input_ids"], rows.references, strict=True):
            logits = model(input_ids=torch.tensor([ids])).logits
            losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor([label])).item())
            right += logits.argmax(-1).item() == label
    return sum(losses) / len(losses), right / len(losses)


@pytest.mark.parametrize("strategy", ["full", "hift"])
def test_looks_come_every_so_many_steps_and_see_loss_and_score(strategy, looked):
    record, _, kept = looked(spec_of(strategy=strategy, eval_every=4))
    assert [look.step for look in record.evaluations] == [4, 8, 10]
    for look in record.evaluations:
        loss, _ = alone(kept[look.step], "development")
        _, score = alone(kept[look.step], "evaluation")
        assert look.dev_loss == pytest.approx(loss, rel=1e-4)
        assert look.score == pytest.approx(score) and look.dev_score is None
    assert record.evaluations[-1].score == record.scores.main
    assert len({look.dev_loss for look in record.evaluations}) == 3


def test_a_look_says_what_training_had_cost_by_then(tmp_path):
    record, curve, _ = watched(spec_of(eval_every=4, batch_size=8), tmp_path)
    for look in record.evaluations:
        assert look.tokens == sum(curve["tokens"][: look.step])
        assert look.flops == sum(curve["flops"][: look.step])
        assert look.seconds == curve["seconds"][look.step - 1]
    assert [look.examples for look in record.evaluations] == [32, 64, 80]
    again = records.load(tmp_path / f"{record.run_id}.json")
    assert again.evaluations == record.evaluations


@pytest.mark.parametrize("extra", [{"eval_every": 4}, {"select": "best"}, {"select": "best_loss"}])
def test_a_run_that_is_looked_at_trains_as_one_that_is_not(extra, looked):
    plain, seen = looked(spec_of()).curve, looked(spec_of(**extra)).curve
    for same in ("loss", "lr", "tokens", "flops"):
        assert seen[same] == plain[same]


class Slow(validation.Validation):
    """Each evaluation takes a long time by the clock."""

    def _evaluate(self, module):
        CLOCK.now += 1000
        return super()._evaluate(module)

    def _copy_if_best(self, evaluation, module):
        CLOCK.now += 1000
        super()._copy_if_best(evaluation, module)


class Clock:
    now = 0.0

    def perf_counter(self):
        Clock.now += 1e-3
        return Clock.now


CLOCK = Clock()


def test_neither_scoring_nor_copying_is_training_time(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmark.measure.training.time", CLOCK)
    monkeypatch.setattr(fit, "Validation", Slow)
    record = recipe.run(spec_of(select="best"), tmp_path)
    assert len(record.evaluations) == 5
    assert record.train.seconds < 1
    assert max(look.seconds for look in record.evaluations) < 1


def scripted(**values):
    """A Validation whose evaluations return the values given."""

    class Scripted(validation.Validation):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self._script = {name: itertools.cycle(found) for name, found in values.items()}

        def _evaluate(self, module):
            evaluation = super()._evaluate(module)
            return dataclasses.replace(evaluation, **{n: next(v) for n, v in self._script.items()})

    return Scripted


@pytest.mark.sparse
@pytest.mark.parametrize(
    ("select", "values", "best"),
    [
        ("best", {"dev_score": [0.1, 0.9, 0.3, 0.9, 0.2]}, 4),
        ("best_loss", {"dev_loss": [0.5, 0.4, 0.2, 0.3, 0.2]}, 6),
    ],
)
@pytest.mark.parametrize("strategy", ["full", "hift"])
def test_the_first_of_the_best_of_five_looks_is_scored(
    select, values, best, strategy, tmp_path, monkeypatch
):
    monkeypatch.setattr(validation, "Validation", scripted(**values))
    record, _, kept = watched(spec_of(select=select, strategy=strategy), tmp_path)
    assert sorted(k for k in kept if k != "end") == [2, 4, 6, 8, 10]
    same = [k for k in kept if all(torch.equal(kept[k][n], kept["end"][n]) for n in kept["end"])]
    assert same == [best, "end"]
    assert record.scores.main == pytest.approx(alone(kept[best], "evaluation")[1])
    assert record.train.steps == 10 and record.scores.split == "validation"


def test_what_is_selected_by_is_what_a_look_sees(looked):
    by_score, _, kept = looked(spec_of(select="best"))
    by_loss = looked(spec_of(select="best_loss")).record
    for step, look in zip((2, 4, 6, 8, 10), by_score.evaluations, strict=True):
        assert look.dev_score == pytest.approx(alone(kept[step], "development")[1])
        assert (look.dev_loss, look.score) == (None, None)
    assert all(look.dev_loss is not None and look.score is None for look in by_loss.evaluations)
