"""`hift-bench schedule`: rows against the paper's algorithm written out."""

import math

import pytest

from benchmark.errors import UserError
from benchmark.timing import preview


def _rows(**settings):
    return list(preview.schedule("roberta-large", **{"group_size": 4, "steps": 40, **settings}))


@pytest.mark.parametrize("order", ["bottom2up", "top2down", "random"])
def test_each_sweep_visits_every_group_once_and_keeps_its_rate(order):
    rows, k = _rows(order=order, seed=3), math.ceil(26 / 4)  # 24 blocks, embeddings, head
    sweeps = [rows[i : i + k] for i in range(0, len(rows) - k + 1, k)]
    visited = [[r["group"] for r in sweep] for sweep in sweeps]
    assert all(sorted(v) == list(range(k)) for v in visited)
    assert all(v == visited[0] for v in visited)  # random is shuffled once, then kept
    expected = {"bottom2up": list(range(k)), "top2down": list(range(k))[::-1]}
    assert order == "random" or visited[0] == expected[order]
    for number, sweep in enumerate(sweeps):
        assert len({r["lr"] for r in sweep}) == 1  # delayed
        assert sweep[0]["lr"] == pytest.approx(1 - number / math.ceil(40 / k))  # linear over sweeps


def test_units_and_ratio():
    first, *_, last = _rows(order="bottom2up", steps=7)
    assert first["units"].split()[0] == "embeddings" and len(first["units"].split()) == 4
    assert last["units"].split()[-1] == "head" and len(last["units"].split()) == 2
    assert sum(r["trainable"] for r in _rows(order="bottom2up", steps=7)) == 355_361_794
    assert first["trainable_ratio"] == first["trainable"] / 355_361_794


def test_units_of_rows():
    rows = _rows(order="bottom2up", group_size=1, partition="rows:16M", steps=28)
    assert rows[0]["units"] == "roberta.embeddings.word_embeddings.weight[0:12566]"
    assert sum(row["trainable"] for row in rows) == 355_361_794, "a sweep of 28 steps"
    assert max(row["trainable"] for row in rows) < 0.04 * 355_361_794


def test_reference_mode_hardly_decays():
    rows = list(
        preview.schedule("llama-7b", group_size=1, order="bottom2up", steps=750, mode="reference")
    )
    assert {r["sweep"] for r in rows} == set(range(1, math.ceil(750 / 35) + 1))  # 35 units
    assert [r["lr"] for r in rows] == pytest.approx([1 - (s // 35) / 750 for s in range(750)])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"order": "botom2up"}, "bottom2up"),
        ({"order": "random", "group_size": 99}, "26"),
        ({"order": "random", "mode": "papr"}, "paper"),
        ({"order": "random", "shape": "linea"}, "linear"),
    ],
)
def test_refused(settings, said):
    with pytest.raises(UserError, match=said):
        _rows(**settings)


def test_an_order_that_gradients_decide_is_said_to_be_one():
    rows = _rows(order="importance", steps=3)
    assert {row["units"] for row in rows} == {"decided by the gradients"}
    assert {(row["group"], row["trainable"]) for row in rows} == {(None, None)}
    assert [row["sweep"] for row in rows] == [1, 1, 1] and rows[0]["lr"] == 1.0
