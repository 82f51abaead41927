"""Sends metrics, params and tags in batches within MLflow's limits on size and length."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ensdistill.runtime.secrets import without_secrets
from ensdistill_tune.formatting import is_block

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, RunTag

POINTS, ENTRIES = 900, 100  # maximum number of metric points, and of params or tags, in one request
LONGEST = 5000  # maximum length of a param or tag in characters; MLflow refuses longer values


class MetricBuffer:
    """Pending metric points, keyed by run."""

    def __init__(self) -> None:
        self._points: dict[str, list[Metric]] = {}

    @property
    def runs(self) -> list[str]:
        """The runs with pending points."""
        return list(self._points)

    def add(self, run: str, metrics: Mapping[str, float], at: float, step: int = 0) -> None:
        """Adds one point to each metric.

        Args:
            run: Id of the run.
            metrics: Values, keyed by metric name.
            at: Time of the points in seconds since 1970.
            step: Step of the points, which is the epoch for training curves.
        """
        from mlflow.entities import Metric

        points = [Metric(name, float(value), milliseconds(at), step) for name, value in metrics.items()]
        self._points.setdefault(run, []).extend(points)

    def flush(self, client: "MlflowClient", run: str, tags: Mapping[str, Any] | None = None) -> None:
        """Sends the points of a run; the last request also contains the tags.

        If sending fails, the points are discarded, because all events are then sent again.

        Args:
            client: Client of MLflow.
            run: Id of the run.
            tags: At most `ENTRIES` tags, keyed by name.
        """
        points = self._points.pop(run, [])
        while len(points) > POINTS:
            client.log_batch(run, metrics=points[:POINTS])
            points = points[POINTS:]
        if points or tags:
            client.log_batch(run, metrics=points, tags=_tags(tags or {}))


def log_params(client: "MlflowClient", run: str, params: Mapping[str, Any]) -> None:
    """Sends params of a run; MLflow does not allow params to be changed later."""
    from mlflow.entities import Param

    entries = [Param(name, _text(value)) for name, value in params.items()]
    for start in range(0, len(entries), ENTRIES):
        client.log_batch(run, params=entries[start : start + ENTRIES])


def log_tags(client: "MlflowClient", run: str, tags: Mapping[str, Any]) -> None:
    """Sends the tags of a run to MLflow."""
    client.log_batch(run, tags=_tags(tags))


def _tags(tags: Mapping[str, Any]) -> "list[RunTag]":
    from mlflow.entities import RunTag

    return [RunTag(name, _text(value)) for name, value in tags.items()]


def milliseconds(at: float) -> int:
    """Returns a time in milliseconds, the unit that MLflow uses."""
    return round(at * 1000)


def _text(value: Any) -> str:
    """Returns the value of a param or tag as a string."""
    return without_secrets(json.dumps(value) if is_block(value) else str(value))[:LONGEST]
