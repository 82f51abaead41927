"""Rows of settings as points, and the row nearest to a suggestion. Requires only NumPy."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Axes = Mapping[str, Mapping[str, Any]]  # `kind` and `values` of each hyperparameter, by name


class RowPoints:
    """Settings of the rows of a table, as points.

    The distance between two rows is the sum over the hyperparameters of a distance in [0, 1]. For numbers, this is the
    difference as a fraction of the range, on a logarithmic scale if the numbers are sampled on this scale. For listed
    values, it is 0 or 1. If a hyperparameter is inactive in only one of the rows, its value is the middle of the range;
    for listed values, the distance is 1/2.

    Attributes:
        settings: Settings of each row.
    """

    def __init__(self, axes: Axes, settings: list[dict[str, Any]]) -> None:
        self._axes, self.settings = axes, settings
        self._points = np.array([self._point(row) for row in settings])

    def nearest(self, suggested: Mapping[str, Any], used: Iterable[int]) -> int:
        """Returns the unused row that is nearest to a suggestion.

        Args:
            suggested: Values by name.
            used: Rows that are already used.
        """
        distances = np.abs(self._points - self._point(suggested)).sum(1)
        distances[list(used)] = math.inf
        return int(distances.argmin())

    def _point(self, row: Mapping[str, Any]) -> NDArray[np.float64]:
        return np.concatenate([_coordinates(axis, row.get(name)) for name, axis in self._axes.items()])


def _coordinates(axis: Mapping[str, Any], value: Any) -> NDArray[np.float64]:
    if axis["kind"] in ("choice", "grid"):
        return np.array([0.5 * (value == other) for other in axis["values"]])
    if value is None:
        return np.array([0.5])
    low, high, here = (math.log(v) if axis["kind"] == "log_uniform" else v for v in (*axis["values"], value))
    return np.array([(here - low) / (high - low)])
