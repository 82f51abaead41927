"""Runs and metric points for a real MLflow server, and functions that read them back."""

import random

from mlflow import MlflowClient
from mlflow.entities import Metric, Run

NOW = 1_700_000_000_000  # milliseconds


def experiment(client: MlflowClient) -> str:
    known = client.get_experiment_by_name("facts")
    return str(known.experiment_id if known else client.create_experiment("facts"))


def new_run(client: MlflowClient, **named: object) -> Run:
    return client.create_run(experiment(client), **named)


def points(count: int) -> list[Metric]:
    """Returns points of ten metrics, with values of all magnitudes; fewer points are a prefix of more points."""
    draw = random.Random(0)
    values = [draw.gauss(0, 1) * 10 ** draw.randint(-12, 12) for _ in range(count)]
    return [Metric(f"val/{i % 10}", value, NOW + i // 10, i // 10) for i, value in enumerate(values)]


def stored(client: MlflowClient, run: Run, names: set[str]) -> list[tuple[str, int, int, float]]:
    history = [point for name in names for point in client.get_metric_history(run.info.run_id, name)]
    return sorted((point.key, point.step, point.timestamp, point.value) for point in history)


def expected(batch: list[Metric]) -> list[tuple[str, int, int, float]]:
    return sorted((point.key, point.step, point.timestamp, point.value) for point in batch)
