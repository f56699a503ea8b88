"""Streamed weights: whatever reads or writes a model sees whole weights."""

import copy

import pytest
import torch
import transformers as T
from families import inputs
from reference import batches, loss_of, same_weights, tiny, train
from streams import FAMILIES, MASTERS, both, with_dropout

from benchmark.engine import HiFT
from benchmark.engine.checkpoint import load, save


@pytest.mark.parametrize("master", MASTERS)
def test_a_run_goes_on_from_streamed_to_resident_and_back(master, tmp_path):
    data = batches(24)
    whole = tiny(depth=5)
    train(whole, HiFT(whole, "adamw", lr=1e-2, **MASTERS[master]), data)
    at, path = 0, tmp_path / "c.pt"
    for seed, (weights, end) in enumerate([("stream", 9), ("resident", 16), ("stream", 24)]):
        model = tiny(depth=5, seed=seed)
        optimizer = HiFT(model, "adamw", lr=1e-2, weights=weights, **MASTERS[master])
        if at:
            load(path, model, optimizer)
        train(model, optimizer, data[at:end])
        save(path, model, optimizer)
        at = end
    assert same_weights(model, whole)


def test_a_checkpoint_within_a_step_has_its_gradients(tmp_path):
    ends = []
    for interrupted in (False, True):
        model = tiny(depth=5)
        optimizer = HiFT(model, "adamw", lr=1e-2, weights="stream", order="top2down")
        train(model, optimizer, batches(3))
        loss_of(model, batches(5)[3]).backward()
        if interrupted:
            save(tmp_path / "c.pt", model, optimizer)
            model = tiny(depth=5, seed=1)
            optimizer = HiFT(model, "adamw", lr=1e-2, weights="stream", order="top2down")
            load(tmp_path / "c.pt", model, optimizer)
        train(model, optimizer, batches(5)[4:])
        ends.append(model)
    assert same_weights(*ends)


def test_saved_models_and_copies_are_whole_at_any_time(tmp_path):
    ends = both(lambda: with_dropout("llama"))
    (plain, _), (streamed, _) = ends
    for number in range(4):
        for model, own in ends:
            torch.manual_seed(number)
            model(**inputs(FAMILIES["llama"], seed=number)).loss.backward()
            if number < 3:
                own.step()
                own.zero_grad()
    streamed.save_pretrained(tmp_path / "folder")  # in the middle of a step
    torch.save(streamed, tmp_path / "model.pt")
    copied, state = copy.deepcopy(streamed), streamed.state_dict()
    saved = torch.load(tmp_path / "model.pt", weights_only=False)
    for model in (T.LlamaForCausalLM.from_pretrained(tmp_path / "folder"), copied, saved):
        assert same_weights(model, plain) and type(model.model.layers[0]) is type(
            plain.model.layers[0]
        )
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    for _, own in ends:
        own.step()
        own.zero_grad()
    assert same_weights(plain, streamed) and not same_weights(copied, plain)


def test_what_is_written_to_a_weight_between_steps_counts():
    ends = both(lambda: tiny(depth=5))
    for model, optimizer in ends:
        for ids in batches(14):
            train(model, optimizer, [ids])
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1.01)
    assert same_weights(ends[0][0], ends[1][0])


def test_loading_weights_into_a_streamed_model_replaces_them():
    model, other = tiny(depth=5), tiny(depth=5, seed=3)
    train(model, HiFT(model, "sgd", lr=1e-2, weights="stream"), batches(3))
    model.load_state_dict(other.state_dict())
    ids = batches(1)[0]
    assert same_weights(model, other) and torch.equal(model(ids), other(ids))
