"""Groups that are drawn (LISA, HFT, MISA), and HiFT ordered by importance, against loops written out."""

import copy
import itertools
import math
import random
from collections import Counter

import pytest
import torch
from families import build
from reference import batches, loss_of, same_weights, tiny, train

from benchmark.engine import HiFT, Schedule, hft, lisa, make_plan, misa
from benchmark.engine.draws import ByImportance, Halves, Uniform
from benchmark.errors import UserError

BLOCKS = ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]


def names_of(model, prefixes):
    return [
        n for n, _ in model.named_parameters() if n.startswith(tuple(f"{p}." for p in prefixes))
    ]


def test_lisa_draws_different_layers_uniformly_and_every_turn_anew():
    draws = [Schedule(6, Uniform(2), seed=5).groups_at(step) for step in range(6000)]
    counts = Counter(draws)
    pairs = list(itertools.combinations(range(6), 2))
    assert set(counts) == set(pairs), "pairs that are no neighbours too"
    expected = 6000 / 15
    chi_square = sum((counts[pair] - expected) ** 2 / expected for pair in pairs)
    assert chi_square < 36.1, "the 0.999 quantile for 14 degrees of freedom"
    repeats = sum(a == b for a, b in itertools.pairwise(draws))
    assert repeats / 5999 == pytest.approx(1 / 15, abs=0.015), "independent of the draw before"


@pytest.mark.parametrize("idle", ["drop", "keep"])
def test_lisa_is_a_written_out_loop(idle):
    """One torch optimizer over everything; what is not drawn has no gradient, and loses its state or keeps
    it."""
    model, written = tiny(), tiny()
    optimizer = lisa(model, "adamw", layers=2, switch_every=3, idle=idle, lr=1e-2, seed=2)
    plan = copy.deepcopy(optimizer.plan)
    train(model, optimizer, batches(23))

    reference = torch.optim.AdamW(written.parameters(), lr=1e-2)
    for step, ids in enumerate(batches(23)):
        drawn = set(plan.group_at(step).units) & set(BLOCKS)
        assert len(drawn) == 2
        frozen = names_of(written, set(BLOCKS) - drawn)
        for name, parameter in written.named_parameters():
            parameter.requires_grad_(name not in frozen)
            if name in frozen and idle == "drop":
                reference.state.pop(parameter, None)
        loss_of(written, ids).backward()
        reference.step()
        reference.zero_grad()
    assert same_weights(model, written)
    held = {name for name, entry in optimizer.state_dict()["state"].items() if entry}
    everything = {name for name, _ in model.named_parameters()}
    assert held == (everything if idle == "keep" else set(optimizer.active.parameters))


def test_lisa_with_all_layers_is_full_fine_tuning_across_its_turns():
    model, plain = tiny(), tiny()
    train(model, lisa(model, "adamw", layers="all", switch_every=2, lr=1e-2), batches(9))
    train(plain, torch.optim.AdamW(plain.parameters(), lr=1e-2), batches(9))
    assert same_weights(model, plain)


def test_lisa_of_more_layers_than_there_are_is_refused():
    with pytest.raises(UserError, match="layers must be a number from 1 to the 4 blocks"):
        lisa(tiny(), layers=5, lr=1e-2)


def test_hft_trains_half_of_each_category_of_a_llama():
    """Two of the four attention matrices, two or one of the three others in half of the layers each, one norm
    of two: section 2.3 of the paper."""
    model = build("llama", "LlamaForCausalLM")
    optimizer = hft(model, "sgd", switch_every=1, lr=1e-2)
    layers = len(model.model.layers)
    halves = set()
    for _ in range(8):
        active = set(optimizer.active.parameters)
        halves.add(frozenset(active))
        others = []
        for layer in range(layers):
            inside = [n for n in active if n.startswith(f"model.layers.{layer}.")]
            assert sum("self_attn" in n for n in inside) == 2
            assert sum("layernorm" in n for n in inside) == 1
            others.append(sum("mlp" in n for n in inside))
        assert sorted(others) == [1] * (layers // 2) + [2] * (layers - layers // 2)
        rest = {n for n, _ in model.named_parameters() if not n.startswith("model.layers.")}
        assert rest <= active
        optimizer.step()
    assert len(halves) == 8, "halves change between rounds"


def test_hft_leaves_the_frozen_half_byte_for_byte_in_its_round():
    model = tiny()
    optimizer = hft(model, "adamw", switch_every=4, lr=1e-2, weight_decay=0.1)
    for start in range(0, 12, 4):
        before = copy.deepcopy(dict(model.named_parameters()))
        active = set(optimizer.active.parameters)
        train(model, optimizer, batches(12)[start : start + 4])
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, before[name]) == (name not in active), name
    assert active != set(optimizer.active.parameters)


def test_misa_draws_as_often_as_its_formula_says():
    """One matrix at a time: p_b = exp(eta G_b) / sum exp(eta G_j). chi-square at 0.999 with 4 degrees."""
    importance = [0.0, 0.3, 1.0, 2.0, 0.1]
    draw = ByImportance(sizes=(7,) * 5, budget=7, eta=1.5)
    counts = Counter(
        draw.draw(5, random.Random(f"0/{turn}"), importance)[0] for turn in range(8000)
    )
    weights = [math.exp(1.5 * value) for value in importance]
    expected = [8000 * weight / sum(weights) for weight in weights]
    assert sum((counts[i] - e) ** 2 / e for i, e in enumerate(expected)) < 18.5
    flat = ByImportance(sizes=(7,) * 5, budget=7, eta=0.0)
    assert flat.probabilities(importance) == [0.2] * 5


def test_misa_draws_without_replacement_until_its_budget_is_used_up():
    draw = ByImportance(sizes=(4, 4, 6, 1), budget=9, eta=1.0)
    weights = [math.exp(value) for value in (0.5, 0.0, 1.0, 0.2)]
    exact = Counter()
    for order in itertools.permutations(range(4)):  # every order of drawing, with its probability
        probability, left, budget, taken = 1.0, sum(weights), 9, []
        for group in order:
            probability *= weights[group] / left
            left -= weights[group]
            if draw.sizes[group] <= budget:
                taken.append(group)
                budget -= draw.sizes[group]
        exact[tuple(sorted(taken))] += probability
    found = Counter(
        draw.draw(4, random.Random(f"1/{turn}"), [0.5, 0.0, 1.0, 0.2]) for turn in range(8000)
    )
    assert set(found) == set(exact)
    for drawn, probability in exact.items():
        assert found[drawn] / 8000 == pytest.approx(probability, abs=0.02)


def test_misa_is_a_written_out_loop_whose_draws_follow_the_gradients():
    model, written = tiny(), tiny()
    for each in (model, written):
        for name, parameter in each.named_parameters():
            parameter.requires_grad_(not name.startswith("blocks.") or parameter.ndim == 2)
    optimizer = misa(model, "adamw", share=0.3, eta=30.0, smoothing=0.7, switch_every=3, lr=1e-2)
    sequence = []
    train(model, optimizer, batches(21), before_step=lambda: sequence.append(optimizer.active))

    named = dict(written.named_parameters())
    matrices = [n for n in named if n.startswith("blocks.") and named[n].requires_grad]
    outside = [n for n in named if not n.startswith("blocks.")]
    sizes = tuple(named[n].numel() for n in matrices)
    draw = ByImportance(sizes, int(0.3 * sum(p.numel() for p in named.values())), 30.0)
    average = [0.0] * len(matrices)
    plain = torch.optim.AdamW([named[n] for n in outside], lr=1e-2)
    turns = draw.turns(len(matrices))
    for turn in range(7):
        dice = random.Random(f"0/{turn // turns}/{turn % turns}")
        chosen = draw.draw(len(matrices), dice, average)
        active = [matrices[i] for i in chosen]
        assert set(sequence[3 * turn].parameters) == {*active, *outside}
        for name in matrices:
            named[name].requires_grad_(name in active)
        inner = torch.optim.AdamW([named[n] for n in active], lr=1e-2)
        squares = Counter()
        for ids in batches(21)[3 * turn : 3 * turn + 3]:
            loss_of(written, ids).backward()
            for i in chosen:
                squares[i] += float(named[matrices[i]].grad.norm()) ** 2
            inner.step()
            plain.step()
            written.zero_grad()
        for i in chosen:
            average[i] = 0.7 * average[i] + 0.3 * squares[i] / 3
    assert same_weights(model, written)
    saved = optimizer.state_dict()["turns"]["importance"]
    assert saved == pytest.approx(average, rel=1e-4) and max(saved) > 0
    assert max(p.numel for p in sequence) <= draw.budget + sum(named[n].numel() for n in outside)


def test_misa_draws_every_module_even_if_its_share_is_too_small_for_one():
    model = tiny()
    optimizer = misa(model, "sgd", share=0.001, switch_every=1, lr=1e-2)
    seen = set()
    train(
        model, optimizer, batches(60), before_step=lambda: seen.update(optimizer.active.parameters)
    )
    assert seen == {name for name, _ in model.named_parameters()}


def test_hift_by_importance_trains_each_group_once_a_sweep_the_largest_gradients_first():
    model = tiny()
    optimizer = HiFT(model, "sgd", lr=1e-2, order="importance", smoothing=0.5)
    average, order, norms = [0.0] * 6, [], []

    def look():
        order.append(optimizer.active.index)
        named = dict(model.named_parameters())
        gradients = [named[name].grad for name in optimizer.active.parameters]
        norms.append(sum(float(g.norm()) ** 2 for g in gradients if g is not None))

    train(model, optimizer, batches(24), before_step=look)
    for sweep in range(4):
        found = order[6 * sweep : 6 * sweep + 6]
        assert found == sorted(range(6), key=lambda i: (-average[i], i))
        for group, norm in zip(found, norms[6 * sweep :], strict=False):
            average[group] = 0.5 * average[group] + 0.5 * norm
    assert order[:6] == list(range(6)) != order[6:12]


def _drawn(kind):
    def lisa_of(model):
        return lisa(model, "adamw", layers=2, switch_every=3, lr=1e-2)

    def hft_of(model):
        return hft(model, "adamw", switch_every=3, lr=1e-2)

    def misa_of(model):
        return misa(model, "adamw", share=0.3, eta=30.0, switch_every=3, lr=1e-2)

    def importance_of(model):
        return HiFT(model, "adamw", order="importance", dwell=2, lr=1e-2)

    made = {"lisa": lisa_of, "hft": hft_of, "misa": misa_of, "importance": importance_of}
    return made[kind]


@pytest.mark.parametrize("kind", ["lisa", "hft", "misa", "importance"])
@pytest.mark.parametrize("stop", [7, 16], ids=["in a turn", "in a later turn"])
def test_a_resumed_run_draws_as_the_unbroken_one(tmp_path, kind, stop):
    make, data = _drawn(kind), batches(30)
    whole, first, second = tiny(), tiny(), tiny(seed=9)
    unbroken = make(whole)
    train(whole, unbroken, data)
    optimizer = make(first)
    train(first, optimizer, data[:stop])
    torch.save({"o": optimizer.state_dict(), "m": first.state_dict()}, tmp_path / "c.pt")
    saved = torch.load(tmp_path / "c.pt", weights_only=True)
    resumed = make(second)
    resumed.load_state_dict(saved["o"])
    second.load_state_dict(saved["m"])
    train(second, resumed, data[stop:])
    assert same_weights(whole, second)
    assert resumed.active == unbroken.active


def test_state_of_another_draw_is_refused():
    state = misa(tiny(), share=0.3, eta=1.0, lr=1e-2).state_dict()
    with pytest.raises(UserError, match="saved with order"):
        misa(tiny(), share=0.3, eta=2.0, lr=1e-2).load_state_dict(state)


def test_a_plan_that_gradients_decide_says_so():
    from benchmark.engine import find_units

    plan = make_plan(find_units(tiny()), order="importance")
    with pytest.raises(UserError, match="gradients decide this order"):
        plan.group_at(0)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (Uniform(7), "7 groups cannot be drawn from 6"),
        (Halves((((0, 1), (2,)),)), "each of the groups"),
        (ByImportance((5,) * 6, 4, 1.0), "can never be drawn with a budget of 4"),
        (ByImportance((5,) * 3, 9, 1.0), "3 sizes for 6 groups"),
    ],
)
def test_draws_that_cannot_be_made_are_refused(order, said):
    with pytest.raises(UserError, match=said):
        HiFT(tiny(), "sgd", lr=1e-2, order=order)
