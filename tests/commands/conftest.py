"""A matrix in an empty folder, of which nothing is tracked."""

from pathlib import Path

import pytest
from runs import TWO_CELLS, Watch

from benchmark.tracking import tracker


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder with the matrix m.yaml, and nothing tracked."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("m.yaml").write_text(TWO_CELLS)


@pytest.fixture
def untracked(monkeypatch, undrawn):
    """Nothing goes to MLflow; the report's pictures are empty files."""
    watch = Watch()
    monkeypatch.setattr(tracker, "Tracker", lambda *_: watch)
    return watch
