"""An MLflow store of each test's own."""

import shutil

import pytest
from mlflow import MlflowClient


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """A store with its tables made once; making them takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"
