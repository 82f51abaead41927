"""Several objectives at once: which points are dominated, which trials may be stopped early.

A point is one value for each objective, and lower is better in all of them (`to_minimization` negates the others). One
point dominates another if it is nowhere worse and somewhere better, so equal points do not dominate each other. The
front holds the points that no other point dominates. NaN is treated as the worst possible value.
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
    """The same values, lower being better in all: those whose mode is `max` change their sign."""
    return tuple(-value if mode == "max" else value for value, mode in zip(values, modes, strict=True))


def pareto_front_indices(values: Points) -> list[int]:
    """The indices of the points that nobody dominates, ascending; equal points are in it together."""
    return _indices(~_dominance(values).any(axis=0))


def fronts(values: Points) -> list[list[int]]:
    """Indices by front: what nobody dominates, what nobody in the rest dominates, and so on.

    Non-dominated sorting. Deb et al. 2002 (NSGA-II), section III A.
    """
    above = _dominance(values)
    betters, found = above.sum(axis=0), []
    while (betters == 0).any():
        found.append(_indices(betters == 0))
        betters[found[-1]] = -1
        betters -= above[found[-1]].sum(axis=0)
    return found


def select_diverse(values: Points, k: int) -> list[int]:
    """At most k different points of the front, well apart; the first of them is the best in the first objective.

    Each next one is the farthest from those chosen, in units of the front's range in each objective: of two objectives
    the second point is the other end. Of equal points only the first is taken. Gonzalez 1985.
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
    """The epochs at which trials are compared: grace * factor^k, rounded up, below the number of epochs.

    The same as those of Ray's ASHA. factor: above 1.
    """
    steps = (math.ceil(grace * factor**k) for k in count())
    return sorted(set(takewhile(lambda step: step < epochs, steps)))


@dataclass
class ParetoRungs:
    """Asynchronous successive halving that does not cut the front.

    At each rung the first values that a trial reports at or after that epoch are recorded, and it is decided once, from
    what the rung holds by then: the trial is stopped when at least 1/reduction_factor of all recorded, itself included,
    lie in better fronts. So whole fronts go on or none of them does, and who is not dominated at its rung always goes
    on: the first to come does, and the second is stopped only if the first dominates it. With one objective it is
    asynchronous successive halving (Li et al. 2020, MLSys), its share rounded up, where a trial stops that would wait
    there. Multi-objective ASHA (Schmucker et al. 2021) holds to the share within the first front too, and so halts
    trials that nobody dominates.

    Where who dominates at a rung still dominates at the end, no trial of the final front is ever stopped. Where
    learning curves cross or are noisy one can be: a costly student that learns slowly is dominated early by a cheap
    one. `tolerance` is for that: a trial goes on, besides, if nobody would dominate it were each of its values better
    by that share of itself. There is one for each objective; 0 belongs to an objective that does not change while
    training, such as inference cost, or else nobody is ever stopped by a trial of equal cost.

    The state is `recorded`, {rung: {trial number: values}} in order of arrival. Decisions are read off it, so a trial
    that asks again is given the same answer, after a restart too.
    """

    rungs: Sequence[int]
    reduction_factor: float
    tolerance: Sequence[float] = (0.0,)
    recorded: dict[int, dict[int, tuple[float, ...]]] = field(default_factory=dict)
    _decided: dict[tuple[int, int], bool] = field(default_factory=dict, init=False, repr=False, compare=False)

    def report(self, number: int, epoch: int, values: Sequence[float]) -> bool:
        """Whether trial `number`, with these values after so many epochs, is to be stopped."""
        reached = [rung for rung in self.rungs if rung <= epoch]
        if not reached:
            return False
        rung = max(reached)
        self.recorded.setdefault(rung, {}).setdefault(number, tuple(values))
        if (rung, number) not in self._decided:  # kept for speed only: the answer would be the same
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
    """(n, objectives), all finite: the worst value there is for what is not a number."""
    points = np.asarray(values, dtype=np.float64).reshape(len(values), -1 if len(values) else 1)
    return np.nan_to_num(points, nan=np.finfo(np.float64).max)


def _dominates(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a is nowhere worse than b and somewhere better, along the last axis."""
    return np.asarray((a <= b).all(axis=-1) & (a < b).any(axis=-1))


def _dominance(values: Points) -> NDArray[np.bool_]:
    """(n, n): whether the row's point dominates the column's."""
    points = _points(values)
    return _dominates(points[:, None], points[None])


def _indices(mask: NDArray[np.bool_] | np.bool_) -> list[int]:
    return [int(i) for i in np.flatnonzero(mask)]
