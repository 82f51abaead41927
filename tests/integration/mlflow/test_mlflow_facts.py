"""Assumptions of tracking about MLflow, tested on each kind of store that a study supports.

If a test fails here, the cause is a change in MLflow and not in this project. Check whether
tune/ensdistill_tune/tracking/ still works with the new behavior.
"""

import math
import time

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from tests.integration.mlflow.mlflow_runs import NOW, expected, experiment, new_run, points, stored


@pytest.fixture(params=["sqlite", "postgres", "http_on_sqlite", "http_on_postgres"])
def client(request: pytest.FixtureRequest) -> MlflowClient:
    """A client of each kind of store in turn."""
    if request.param == "sqlite":  # the database of a server, which is faster than creating another one
        return MlflowClient(request.getfixturevalue("http_on_sqlite").store_uri)
    return MlflowClient(request.getfixturevalue(request.param).uri)


# --- duplicates ------------------------------------------------------------------------------------------------------


def test_a_metric_point_that_is_sent_twice_is_stored_once(client: MlflowClient) -> None:
    run, batch, later = new_run(client), points(1000), points(1500)[1000:]
    overlapping = batch[500:] + later
    for sent in (batch, batch, overlapping, overlapping, batch[:7] * 2):
        client.log_batch(run.info.run_id, metrics=sent)
    assert stored(client, run, {point.key for point in batch}) == expected(batch + later)


def test_infinite_and_nan_values_that_are_sent_twice_are_stored_once(client: MlflowClient) -> None:
    run = new_run(client)
    values = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e-310, 0.1 + 0.2, 2.0**53 + 2]
    batch = [Metric("odd", value, NOW, step) for step, value in enumerate(values)]
    for sent in (batch, batch, batch[:1], batch[1:2]):
        client.log_batch(run.info.run_id, metrics=sent)
    kept = [value for *_, value in stored(client, run, {"odd"})]
    largest = 1.7976931348623157e308  # values that MLflow stores for infinity
    assert math.isnan(kept[0])
    assert kept[1:] == [largest, -largest, *values[3:]]


def test_metric_points_that_differ_only_in_their_timestamp_are_stored_separately(client: MlflowClient) -> None:
    run = new_run(client)
    for milliseconds in (0, 1):
        client.log_batch(run.info.run_id, metrics=[Metric("val/loss", 0.5, NOW + milliseconds, 3)])
    assert len(stored(client, run, {"val/loss"})) == 2


def test_the_latest_value_is_that_of_the_highest_step_regardless_of_the_sending_order(client: MlflowClient) -> None:
    run, old, new = new_run(client), Metric("val/loss", 9.0, NOW, 1), Metric("val/loss", 0.5, NOW + 1, 2)
    for point in (old, new, old):
        client.log_batch(run.info.run_id, metrics=[point])
    assert client.get_run(run.info.run_id).data.metrics == {"val/loss": 0.5}


def test_parameters_may_be_sent_again_but_not_changed(client: MlflowClient) -> None:
    run = new_run(client).info.run_id
    for _ in range(2):
        client.log_batch(run, params=[Param("lr", "0.1"), Param("student.kind", "single")])
    with pytest.raises(MlflowException) as refused:
        client.log_batch(run, params=[Param("lr", "0.2")])
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
    assert client.get_run(run).data.params == {"lr": "0.1", "student.kind": "single"}


def test_tags_that_are_sent_again_are_overwritten(client: MlflowClient) -> None:
    run = new_run(client, tags={"outcome": "running"}).info.run_id
    client.log_batch(run, tags=[RunTag("outcome", "pruned")])
    client.set_tag(run, "outcome", "finished")
    assert client.get_run(run).data.tags["outcome"] == "finished"


def test_an_unknown_run_causes_a_permanent_error(client: MlflowClient) -> None:
    with pytest.raises(MlflowException) as refused:
        client.log_batch("0" * 32, metrics=points(1))
    assert refused.value.error_code == "RESOURCE_DOES_NOT_EXIST"


# --- start and end of a run ------------------------------------------------------------------------------------------


def test_a_run_is_stored_with_the_given_start_and_end_times(client: MlflowClient) -> None:
    run = new_run(client, start_time=NOW).info.run_id
    for _ in range(2):  # sent again after an outage
        client.set_terminated(run, "KILLED", NOW + 5000)
    info = client.get_run(run).info
    assert (info.start_time, info.end_time, info.status) == (NOW, NOW + 5000, "KILLED")


def test_an_ended_run_can_be_continued_and_ended_again(client: MlflowClient) -> None:
    run = new_run(client).info.run_id
    client.set_terminated(run, "KILLED", NOW)
    client.log_batch(run, metrics=points(1))  # late points are accepted
    client.update_run(run, status="RUNNING")
    assert client.get_run(run).info.status == "RUNNING"
    client.set_terminated(run, "FINISHED", NOW + 1)
    info = client.get_run(run).info
    assert (info.status, info.end_time) == ("FINISHED", NOW + 1)


def test_a_run_can_be_found_by_two_tags(client: MlflowClient) -> None:
    study = f"study-{time.time_ns()}"
    runs = {n: new_run(client, tags={"study_id": study, "trial": n}).info.run_id for n in ("7", "77")}
    found = client.search_runs([experiment(client)], f"tags.study_id = '{study}' and tags.trial = '7'")
    assert [run.info.run_id for run in found] == [runs["7"]]
