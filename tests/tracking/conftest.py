"""A separate MLflow store for each test."""

import shutil

import pytest
from mlflow import MlflowClient


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """A store whose tables are created once for all tests, because creating them takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"
