"""A finite search problem: the rows of a table of learning curves, from which searchers choose without replacement."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from tests.benchmarks.learning_curves import SEEDS, Task
from tests.benchmarks.row_points import RowPoints

Array = NDArray[np.float64]


class CurveTable:
    """The complete rows of a task: those that are trained with all seeds.

    Attributes:
        settings: Settings of each row.
        curves: Metric after each epoch, of shape (rows, seeds, epochs); lower is better.
        points: The rows as points.
    """

    def __init__(self, task: Task, metric: str = "nll") -> None:
        self.task = task
        rows = {(int(row["place"]), int(row["seed"])): row for row in task.rows()}
        places = sorted({place for place, _ in rows if all((place, seed) in rows for seed in SEEDS)})
        columns = [f"{metric}_{epoch}" for epoch in range(1, task.study.epochs + 1)]
        self.settings = [task.settings(place) for place in places]
        self.curves = np.array([[[float(rows[p, s][name]) for name in columns] for s in SEEDS] for p in places])
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

    @property
    def seed_correlation(self) -> float:
        """Spearman's rank correlation of the final metrics of the two seeds."""
        return float(spearmanr(*self.curves[:, :, -1].T).statistic)

    def foresight(self, epoch: int) -> float:
        """Returns Spearman's rank correlation of the metric after an epoch with the last one, mean over the seeds."""
        seeds = range(self.curves.shape[1])
        return float(np.mean([spearmanr(self.curves[:, s, epoch - 1], self.curves[:, s, -1]).statistic for s in seeds]))
