"""Tests of the engine: one thread, so that bit-for-bit comparisons do not depend on the machine."""

import pytest
import torch
from ranks import start

ranks = pytest.fixture(scope="session")(start)  # starts when a test first asks for it


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is slow
def pytest_collection_modifyitems(items):
    """What needs two processes is slow: they take some seconds to start."""
    for item in items:
        if "ranks" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
