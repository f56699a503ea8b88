"""A plain torch loop with clipping, accumulation and the delayed rate, saved with torch.save alone."""

import pytest
import torch
from loops import TOTAL, by_hand, hift
from reference import batches, same_weights, tiny, train


@pytest.mark.parametrize("weights", ["resident", "stream"])
@pytest.mark.parametrize(("accumulate", "clip"), [(1, None), (3, 0.05)])
def test_the_plain_loop_is_the_loop_by_hand(accumulate, clip, weights):
    data = batches(TOTAL * accumulate)
    expected, _ = by_hand(data, accumulate=accumulate, clip=clip)
    model = tiny()
    optimizer, scheduler = hift(model, weights=weights)
    train(model, optimizer, data, accumulate=accumulate, clip=clip, scheduler=scheduler)
    assert same_weights(model, expected)


def test_torch_save_and_load_resume_mid_sweep(tmp_path):
    data = batches(TOTAL)
    expected, _ = by_hand(data, clip=0.05)
    model = tiny()
    optimizer, scheduler = hift(model)
    train(model, optimizer, data[:9], clip=0.05, scheduler=scheduler)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    torch.save({name: part.state_dict() for name, part in parts.items()}, tmp_path / "c.pt")

    model = tiny(seed=7)
    optimizer, scheduler = hift(model)
    saved = torch.load(tmp_path / "c.pt", weights_only=True)
    for name, part in {"model": model, "optimizer": optimizer, "scheduler": scheduler}.items():
        part.load_state_dict(saved[name])
    train(model, optimizer, data[9:], clip=0.05, scheduler=scheduler)
    assert same_weights(model, expected)
