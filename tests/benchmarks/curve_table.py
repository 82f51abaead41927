"""A finite search problem: the rows of a table of learning curves, from which searchers choose without replacement."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from tests.benchmarks.learning_curves import Task
from tests.benchmarks.row_points import RowPoints

Array = NDArray[np.float64]


class CurveTable:
    """The rows of a task that have been trained with all seeds.

    Attributes:
        settings: Settings of each row.
        curves: Metric after each epoch, of shape (rows, seeds, epochs); lower is better.
        points: The rows as points.
    """

    def __init__(self, task: Task, metric: str = "nll") -> None:
        self.task = task
        rows = {(int(row["place"]), int(row["seed"])): row for row in task.rows()}
        places = sorted({place for place, _ in rows if all((place, seed) in rows for seed in task.seeds)})
        columns = [f"{metric}_{epoch}" for epoch in range(1, task.study.epochs + 1)]
        self.settings = [task.settings(place) for place in places]
        self.curves = np.array([[[float(rows[p, s][name]) for name in columns] for s in task.seeds] for p in places])
        self.points = RowPoints(self.axes, self.settings)

    @property
    def axes(self) -> dict[str, dict[str, Any]]:
        """Kind, values and condition of each hyperparameter."""
        axes = self.task.study.space.axes.items()
        return {name: {"kind": axis.kind, "values": axis.values, "when": axis.when} for name, axis in axes}

    @property
    def epochs(self) -> int:
        """Number of epochs of a trial."""
        return int(self.curves.shape[2])

    @property
    def truth(self) -> Array:
        """Final metric of each row, the mean over the seeds."""
        mean: Array = self.curves[:, :, -1].mean(1)
        return mean

    def __str__(self) -> str:
        """Returns the number of rows, and rank correlations: of half with whole trainings, and of two seeds."""
        ends, half = self.curves[:, :, -1], self.curves[:, :, self.epochs // 2 - 1]
        early = float(np.mean([_rank_correlation(*pair) for pair in zip(half.T, ends.T, strict=True)]))
        words = f"{len(ends)} rows; rank correlation of half and whole trainings {early:.2f}"
        return words if ends.shape[1] == 1 else f"{words}, of two seeds {_rank_correlation(*ends.T[:2]):.2f}"


def _rank_correlation(one: Array, other: Array) -> float:
    return float(spearmanr(one, other).statistic)
