"""Optimization with several objectives: Pareto fronts, and early stopping based on fronts.

A point has one value for each objective; lower is always better (`to_minimization` negates maximized objectives). One
point dominates another if it is not worse in any objective and is better in at least one. Equal points therefore do
not dominate each other. The front contains the points that no other point dominates. NaN is treated as the worst
possible value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, takewhile
from typing import TYPE_CHECKING

from ensdistill.runtime.lazy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Point = Sequence[float] | NDArray[np.float64]  # one value for each objective
    Points = Sequence[Point] | NDArray[np.float64]


def to_minimization(values: Sequence[float], modes: Sequence[str]) -> tuple[float, ...]:
    """Returns the values for minimization: values whose mode is `max` are negated.

    Args:
        values: One value for each objective.
        modes: `min` or `max` for each objective.
    """
    return tuple(-value if mode == "max" else value for value, mode in zip(values, modes, strict=True))


def pareto_front_indices(values: Points) -> list[int]:
    """Returns the indices of the non-dominated points, ascending; equal points are either all included or all omitted.

    Args:
        values: Points of shape (n, objectives).
    """
    return _indices(~_dominance(values).any(axis=0))


def fronts(values: Points) -> list[list[int]]:
    """Returns the indices of the points in each front (non-dominated sorting).

    The first front contains the non-dominated points. The second front contains the points that are dominated only by
    points of the first front, and so on.

    Args:
        values: Points of shape (n, objectives).

    References:
        Deb et al. 2002 (NSGA-II), section III A.
    """
    above = _dominance(values)
    betters, found = above.sum(axis=0), []
    while (betters == 0).any():
        found.append(_indices(betters == 0))
        betters[found[-1]] = -1
        betters -= above[found[-1]].sum(axis=0)
    return found


def select_diverse(values: Points, k: int) -> list[int]:
    """Returns the indices of at most k distinct, widely spaced points of the front.

    The first point is the best in the first objective. Each further point is the farthest from the points selected so
    far, after scaling each objective by its range on the front. With two objectives, the second point is therefore the
    other end of the front. If several points are equal, only the first is returned.

    Args:
        values: Points of shape (n, objectives).
        k: Maximum number of points.

    References:
        Gonzalez 1985, Clustering to minimize the maximum intercluster distance.
    """
    points = _points(values)
    candidates = sorted(pareto_front_indices(values), key=lambda i: tuple(points[i]))
    if not candidates:
        return []
    ranges = np.ptp(points[candidates], axis=0)
    units = points[candidates] / np.where(ranges > 0, ranges, 1)
    chosen: list[int] = []
    away = np.full(len(candidates), np.inf)
    while len(chosen) < k and away.any():
        chosen.append(int(away.argmax()))
        away = np.minimum(away, np.linalg.norm(units - units[chosen[-1]], axis=1))
    return [candidates[i] for i in chosen]


def rungs(grace: int, factor: float, epochs: int) -> list[int]:
    """Returns the epochs at which trials are compared: grace * factor^k for k = 0, 1, ..., rounded up, below `epochs`.

    These epochs are the same as the rungs of Ray's ASHA.

    Args:
        grace: The first rung.
        factor: Ratio of two successive rungs, above 1.
        epochs: Number of epochs of a trial.
    """
    steps = (math.ceil(grace * factor**k) for k in count())
    return sorted(set(takewhile(lambda step: step < epochs, steps)))


@dataclass
class ParetoRungs:
    """Asynchronous successive halving that never stops a non-dominated trial.

    Each rung records the first values that a trial reports at or after the epoch of the rung. The trial is then
    compared once with all trials recorded so far, including itself. It is stopped if at least 1/reduction_factor of
    these trials lie in better fronts. The decision depends only on which front contains the trial, and a trial that is
    not dominated at its rung is never stopped. For example, the first trial always continues, and the second is stopped
    only if the first dominates it. With one objective, the rule is asynchronous successive halving with two changes:
    the number of continuing trials is rounded up, and trials are stopped instead of paused (Li et al. 2020). In
    contrast, multi-objective ASHA (Schmucker et al. 2021) also stops trials of the first front if this front contains
    more trials than may continue.

    If each trial that is dominated at a rung is also dominated at the end, no trial of the final front is stopped. If
    learning curves cross or are noisy, a trial of the final front can be stopped: a costly student that learns slowly
    is dominated early by a cheap one. `tolerance` handles that case: a trial also continues if improving its values by
    this relative margin would make it non-dominated. The tolerance should be 0 for an objective that does not change
    during training, such as inference cost. With a positive tolerance for cost, a trial would never be stopped because
    of a better trial with the same cost.

    Decisions are computed from `recorded`, so a repeated report gives the same decision, even after a restart.

    Attributes:
        rungs: Epochs at which trials are compared, ascending.
        reduction_factor: Number above 1; a trial is stopped if at least 1/reduction_factor of the trials lie in better
            fronts.
        tolerance: Relative margin for each objective.
        recorded: Values, keyed by rung and trial number, in the order of arrival.

    References:
        Li et al. 2020, MLSys. Schmucker et al. 2021.
    """

    rungs: Sequence[int]
    reduction_factor: float
    tolerance: Sequence[float] = (0.0,)
    recorded: dict[int, dict[int, tuple[float, ...]]] = field(default_factory=dict)
    _decided: dict[tuple[int, int], bool] = field(default_factory=dict, init=False, repr=False, compare=False)

    def report(self, number: int, epoch: int, values: Sequence[float]) -> bool:
        """Returns whether a trial must stop.

        Args:
            number: Trial number.
            epoch: Number of epochs that the trial has completed.
            values: Objectives after that epoch; lower is better.
        """
        reached = [rung for rung in self.rungs if rung <= epoch]
        if not reached:
            return False
        rung = max(reached)
        self.recorded.setdefault(rung, {}).setdefault(number, tuple(values))
        if (rung, number) not in self._decided:  # only a cache: recomputing gives the same decision
            self._decided[rung, number] = self._stops(rung, number)
        return self._decided[rung, number]

    def _stops(self, rung: int, number: int) -> bool:
        recorded = self.recorded[rung]
        last = list(recorded).index(number)
        points = _points(list(recorded.values())[: last + 1])
        bar = points[last] - np.abs(points[last]) * np.asarray(self.tolerance)
        if not _dominates(points, bar).any():
            return False
        better = takewhile(lambda some: last not in some, fronts(points))
        return sum(map(len, better)) >= len(points) / self.reduction_factor


def _points(values: Points) -> NDArray[np.float64]:
    """Returns points of shape (n, objectives), with NaN replaced by the worst possible finite value."""
    points = np.asarray(values, dtype=np.float64).reshape(len(values), -1 if len(values) else 1)
    return np.nan_to_num(points, nan=np.finfo(np.float64).max)


def _dominates(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns whether a is not worse than b in any element and better in at least one, along the last axis."""
    return np.asarray((a <= b).all(axis=-1) & (a < b).any(axis=-1))


def _dominance(values: Points) -> NDArray[np.bool_]:
    """Returns a mask of shape (n, n): whether the row's point dominates the column's point."""
    points = _points(values)
    return _dominates(points[:, None], points[None])


def _indices(mask: NDArray[np.bool_] | np.bool_) -> list[int]:
    return [int(i) for i in np.flatnonzero(mask)]
