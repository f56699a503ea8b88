"""What tests of score tables share."""

import pytest
from score_records import MATRIX, Results

from benchmark.tables import evidence


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Every run of the matrix on record."""
    (tmp_path / "matrices").mkdir()
    (tmp_path / "matrices" / "glue_roberta.yaml").write_text(MATRIX)
    monkeypatch.setattr(evidence, "MATRICES", tmp_path / "matrices")
    return Results(tmp_path)
