"""Errors that MLflow raises while a store is unavailable, and recovery, with real killed and frozen servers."""

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import mlflow.store.db.utils
import psycopg
import pytest
import sqlalchemy.exc
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from tests.integration.mlflow.mlflow_runs import expected, experiment, new_run, points, stored
from tests.servers import MlflowServer, Postgres, wait_until


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disables retries; MLflow reads these variables at each request, so a driver may set them at any time."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


@pytest.fixture
def down(http_on_sqlite: MlflowServer) -> Iterator[MlflowServer]:
    """A running server that is restarted after the test."""
    yield http_on_sqlite
    http_on_sqlite.thaw()
    if not http_on_sqlite.running:
        http_on_sqlite.start()


@pytest.fixture
def cut(postgres: Postgres) -> Iterator[Postgres]:
    """A running PostgreSQL cluster that is restarted after the test."""
    yield postgres
    if not postgres.running:
        postgres.start()


def every_call(client: MlflowClient, run: Run) -> list[Callable[[], object]]:
    here = run.info.experiment_id
    return [
        lambda: client.get_experiment_by_name("facts"),
        lambda: client.create_run(here),
        lambda: client.log_batch(run.info.run_id, metrics=points(10)),
        lambda: client.set_tag(run.info.run_id, "outcome", "finished"),
        lambda: client.search_runs([here], "tags.trial = '7'"),
        lambda: client.set_terminated(run.info.run_id),
    ]


def test_a_client_can_be_created_while_its_server_is_unreachable() -> None:
    MlflowClient("http://127.0.0.1:1")


def test_a_killed_server_causes_an_mlflow_error_and_the_client_works_again_after_a_restart(down: MlflowServer) -> None:
    client = MlflowClient(down.uri)
    run, batch = new_run(client), points(20)
    client.log_batch(run.info.run_id, metrics=batch[:15])
    down.kill()
    for call in every_call(client, run):
        with pytest.raises(MlflowException) as refused:
            call()
        assert refused.value.error_code == "INTERNAL_ERROR"
    down.start()
    client.log_batch(run.info.run_id, metrics=batch)
    assert stored(client, run, {point.key for point in batch}) == expected(batch)


def test_a_server_that_hangs_causes_an_mlflow_error_after_the_timeout(
    down: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(down.uri)
    run, batch = new_run(client), points(20)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    down.freeze()
    for call in every_call(client, run)[2:4]:
        with pytest.raises(MlflowException) as late:
            call()
        assert late.value.error_code == "INTERNAL_ERROR"
    down.thaw()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    client.log_batch(run.info.run_id, metrics=batch)
    assert stored(client, run, {point.key for point in batch}) == expected(batch)


def test_a_server_may_create_a_run_after_the_request_has_timed_out(
    down: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Therefore, a run must be searched for by its tags later as well, not only before the next attempt."""
    client, tag = MlflowClient(down.uri), f"ghost-{time.time_ns()}"
    here = experiment(client)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with locked(down.store_uri), pytest.raises(MlflowException):
        client.create_run(here, tags={"study_id": tag})
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    wait_until(lambda: len(client.search_runs([here], f"tags.study_id = '{tag}'")) == 1, "the run is there")


def test_a_stopped_postgresql_causes_an_mlflow_error_and_the_client_reconnects_automatically(cut: Postgres) -> None:
    client = MlflowClient(cut.uri)
    run = new_run(client)
    for end in (cut.stop, cut.kill):
        end()
        for call in every_call(client, run):
            with pytest.raises(MlflowException) as refused:
                call()
            assert refused.value.error_code == "TEMPORARILY_UNAVAILABLE"
        cut.start()
        client.log_batch(run.info.run_id, metrics=points(10))
    assert len(stored(client, run, {point.key for point in points(10)})) == 10


def test_a_connection_to_postgresql_lost_during_a_call_causes_an_sqlalchemy_error(cut: Postgres) -> None:
    """The error handler of MLflow fails in the rollback. Nothing is stored, and a repeated batch is stored once."""
    client, batch = MlflowClient(cut.uri), points(1000)
    run = new_run(client)
    errors = cut_within(cut, lambda: client.log_batch(run.info.run_id, metrics=batch))
    assert [isinstance(error, sqlalchemy.exc.SQLAlchemyError) for error in errors] == [True]
    assert not isinstance(errors[0], MlflowException)
    names = {point.key for point in batch}
    assert stored(client, run, names) == []
    client.log_batch(run.info.run_id, metrics=batch)
    assert stored(client, run, names) == expected(batch)


def test_a_server_that_loses_its_connection_to_postgresql_returns_an_mlflow_error(
    cut: Postgres, http_on_postgres: MlflowServer
) -> None:
    client, batch = MlflowClient(http_on_postgres.uri), points(1000)
    run = new_run(client)
    errors = cut_within(cut, lambda: client.log_batch(run.info.run_id, metrics=batch))
    assert [type(error) for error in errors] == [MlflowException]
    client.log_batch(run.info.run_id, metrics=batch)
    cut.stop()
    with pytest.raises(MlflowException):
        client.log_batch(run.info.run_id, metrics=batch)
    cut.start()
    client.log_batch(run.info.run_id, metrics=batch)
    assert stored(client, run, {point.key for point in batch}) == expected(batch)


def test_a_client_cannot_be_created_while_postgresql_is_down(cut: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the default of ten attempts in MLflow, this takes 101 seconds."""
    monkeypatch.setattr(mlflow.store.db.utils, "MAX_RETRY_COUNT", 1)
    never_used = f"{cut.uri}&application_name={time.time_ns()}"
    cut.stop()
    with pytest.raises(sqlalchemy.exc.OperationalError):
        MlflowClient(never_used)


def test_a_call_waits_while_sqlite_is_temporarily_locked(http_on_sqlite: MlflowServer) -> None:
    client = MlflowClient(http_on_sqlite.store_uri)
    run, errors = new_run(client), []
    with locked(http_on_sqlite.store_uri):
        logging = in_thread(lambda: client.log_batch(run.info.run_id, metrics=points(10)), errors)
        logging.join(0.5)
        assert logging.is_alive()
    logging.join(30)
    assert errors == []
    assert len(stored(client, run, {point.key for point in points(10)})) == 10


def test_an_sqlite_store_in_a_missing_folder_causes_an_mlflow_error_until_the_folder_exists(
    http_on_sqlite: MlflowServer, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    shutil.copy(http_on_sqlite.store_uri.removeprefix("sqlite:///"), tmp_path / "here" / "mlflow.db")
    client = MlflowClient(f"sqlite:///{tmp_path}/here/mlflow.db")
    run = new_run(client)
    (tmp_path / "here").rename(tmp_path / "away")
    for call in (every_call(client, run)[i] for i in (1, 2, 5)):  # reads may still use the open file
        with pytest.raises(MlflowException) as refused:
            call()
        assert refused.value.error_code == "TEMPORARILY_UNAVAILABLE"
    (tmp_path / "away").rename(tmp_path / "here")
    client.log_batch(run.info.run_id, metrics=points(10))
    assert len(stored(client, run, {point.key for point in points(10)})) == 10


@contextmanager
def locked(store_uri: str) -> Iterator[None]:
    """Holds an exclusive lock on the SQLite store, as a long write by another process would."""
    with closing(sqlite3.connect(store_uri.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


def in_thread(call: Callable[[], object], errors: list[Exception]) -> threading.Thread:
    def guarded() -> None:
        try:
            call()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    return thread


def cut_within(cluster: Postgres, call: Callable[[], object]) -> list[Exception]:
    """Returns the errors of a call whose transaction is open when PostgreSQL is killed: the call waits for our lock."""
    errors: list[Exception] = []
    with closing(psycopg.connect(cluster.uri)) as ours, closing(psycopg.connect(cluster.uri, autocommit=True)) as watch:
        ours.execute("LOCK TABLE metrics IN EXCLUSIVE MODE")
        thread = in_thread(call, errors)
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: watch.execute(waiting).fetchone() is not None, "the call waits for the lock")
        cluster.kill()
    cluster.start()
    thread.join(30)
    return errors
