"""Markers by folder, one CPU thread for all tests because their networks are small, a real study, and servers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ensdistill_tune.execution.environment import configure_process
from tests.servers import MlflowServer, Postgres
from tests.tiny import TinyStudy, launched

configure_process()  # set before a test imports Ray or MLflow, as the commands do

TESTS = Path(__file__).parent
LANES = {  # marker of the tests in each folder; a marker of a test itself takes precedence
    "unit": "unit",
    "docs": "unit",
    "golden": "unit",
    "integration/ray": "ray",
    "integration/mlflow": "server",
    "integration/browser": "browser",
    "end_to_end": "e2e",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not any(item.get_closest_marker(lane) for lane in LANES.values()):
            folder = item.path.relative_to(TESTS)
            lanes = [lane for name, lane in LANES.items() if folder.is_relative_to(name)]
            if not lanes:
                raise pytest.UsageError(f"tests/{folder}: in none of the folders {', '.join(LANES)}")
            item.add_marker(lanes[0])


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> TinyStudy:
    """A small finished study shared by the tests of all workers; tests must not change it."""
    own = tmp_path_factory.getbasetemp()
    return launched((own if worker_id == "master" else own.parent) / "tiny")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL; a test that stops it restarts it. With CI_POSTGRES=required, its absence is an error."""
    try:
        cluster = Postgres()
    except FileNotFoundError as error:
        if os.environ.get("CI_POSTGRES") == "required":
            raise
        pytest.skip(str(error))
    with cluster:
        yield cluster


@pytest.fixture(scope="session")
def http_on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A running MLflow server; a test that stops it restarts it."""
    with MlflowServer(f"sqlite:///{tmp_path_factory.mktemp('server')}/mlflow.db") as server:
        yield server


@pytest.fixture(scope="session")
def http_on_postgres(postgres: Postgres) -> Iterator[MlflowServer]:
    """A running MLflow server that stores everything in PostgreSQL."""
    with MlflowServer(postgres.uri) as server:
        yield server
