"""A model that ranks divide, and what a run refuses to divide; whole runs are in test_devices."""

import pytest
from factories import make_spec, make_strategy

from benchmark.errors import Unsupported
from benchmark.matrices import foreseen
from benchmark.strategies import STRATEGIES, strategy_class

REFUSING = [
    name
    for name in STRATEGIES
    if {"sharded", "data_parallel"} & strategy_class(name).refuses.keys()
]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "sharded: the model is divided over devices: give devices: 2 or more"),
        ({"devices": 2, "loss": "chunked"}, "sharded: .*: use loss: whole"),
        ({"strategy": "none", "lr": None, "epochs": None}, "sharded is not used"),
    ],
    ids=str,
)
def test_a_spec_that_cannot_be_divided_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        make_spec(**fields, sharded=True)


def test_sharded_is_part_of_the_hash_and_its_default_is_not():
    whole, apart = (make_spec(devices=2, **more) for more in ({}, {"sharded": True}))
    assert make_spec(devices=2, sharded=False).hash == whole.hash != apart.hash


@pytest.mark.parametrize(
    "fields",
    [
        *({"strategy": name} for name in REFUSING),
        {"options": {"weights": "stream"}},
        {"options": {"update": "in_backward"}},
        {"options": {"partition": "rows:500K"}},
        {"options": {"order": "importance"}},
        {"options": {"adapter": "compacter"}},
        {"optimizer": "adafactor"},
        {"precision": "mixed_hi"},
        {"strategy": "full", "precision": "bf16_weights"},
        {"strategy": "full", "optimizer": "muon"},
    ],
    ids=str,
)
def test_what_cannot_be_divided_says_why_in_one_line(fields):
    spec = make_spec(**{"strategy": "hift", **fields}, devices=2, sharded=True)
    with pytest.raises(Unsupported, match=r"does not work with (sharded|data_parallel): ") as said:
        make_strategy(spec)
    assert "\n" not in str(said.value)
    assert foreseen.fault(spec).reason == str(said.value), "as a plan shows it"
