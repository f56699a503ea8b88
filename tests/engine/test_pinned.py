"""Pinned memory of exact size. Registration is CUDA's; here a stand-in notes what it is asked for."""

import gc

import pytest
import torch

from benchmark.engine.pinned import LEAST, pinned_like


class Cuda:
    """The calls of the CUDA runtime, which always succeed."""

    def __init__(self):
        self.registered: dict[int, int] = {}

    def cudaHostRegister(self, address, nbytes, flags):
        self.registered[address] = nbytes
        return 0

    def cudaHostUnregister(self, address):
        del self.registered[address]
        return 0


@pytest.fixture
def cuda(monkeypatch):
    stand_in = Cuda()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: stand_in)
    return stand_in


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.uint8])
def test_exactly_the_bytes_of_the_tensor_are_pinned_until_its_last_view_ends(cuda, dtype):
    weight = torch.randn(1100, 1003).to(dtype).t()
    copy = pinned_like(weight).copy_(weight)
    assert torch.equal(copy, weight) and copy.stride() == weight.stride() and copy.dtype == dtype
    assert cuda.registered == {copy.data_ptr(): weight.nbytes}
    assert weight.nbytes >= LEAST and copy.untyped_storage().nbytes() == weight.nbytes
    part = copy[7:9]
    del copy
    gc.collect()
    assert len(cuda.registered) == 1 and torch.equal(part, weight[7:9])
    del part
    gc.collect()
    assert not cuda.registered


def test_a_master_is_of_another_dtype_than_its_weight(cuda):
    low = torch.ones(2000, 1000, dtype=torch.bfloat16)
    master = pinned_like(low, torch.float32)
    assert master.dtype == torch.float32 and list(cuda.registered.values()) == [4 * low.numel()]
