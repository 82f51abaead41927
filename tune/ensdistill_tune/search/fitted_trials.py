"""The trials on which a model of the search is fitted, in studies of thousands of trials.

Optuna fits a tree-structured Parzen estimator on all trials, at every suggestion and for every hyperparameter, so its
time for a suggestion grows with the number of trials. It compares the density of the best trials with that of all
others. The best ones are kept here, and of the others an even selection, which has the same density.
"""

from bisect import insort
from collections.abc import Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

BEST = 25  # Optuna's model of good trials has at most this number of trials

Key = tuple[float, ...]  # orders ended trials, best first


class FittedTrials:
    """Selection of the trials of a study; it is a function of the ended trials, not of the order of their ends.

    Up to `limit` ended trials all are selected. Later, the best ones and those whose place is a multiple of a power of
    two: the smallest one with which at most `limit` trials are selected. Running trials are always selected.
    """

    def __init__(self, limit: int) -> None:
        """Selects nothing yet.

        Args:
            limit: Maximum number of ended trials in addition to the best ones.
        """
        self._limit, self._step = limit, 1
        self._running, self._even = set[int](), list[int]()
        self._best: list[tuple[Key, int]] = []

    def begun(self, place: int) -> None:
        """Adds a running trial.

        Args:
            place: Its number in Optuna's study.
        """
        self._running.add(place)

    def ended(self, place: int, key: Key | None) -> None:
        """Adds an ended trial.

        Args:
            place: Its number in Optuna's study.
            key: Orders it among the others; None for a failed trial, which no model uses.
        """
        self._running.discard(place)
        if key is None:
            return
        insort(self._best, (key, place))
        del self._best[BEST:]
        if place % self._step == 0:
            self._even.append(place)
        while len(self._even) > self._limit:
            self._step *= 2
            self._even = [place for place in self._even if place % self._step == 0]

    @property
    def places(self) -> list[int]:
        """Numbers of the selected trials in Optuna's study, ascending."""
        return sorted({*self._even, *self._running, *(place for _, place in self._best)})


def key_of(trial: FrozenTrial, sign: float) -> Key:
    """Returns the key of an ended trial with one objective, by which Optuna's estimator orders trials.

    Trials that meet the constraints come first: completed ones by their value, then pruned ones by their last epoch and
    value. Others follow, by their violation.

    Args:
        trial: The trial.
        sign: -1 if the objective is maximized, otherwise 1.
    """
    violation = sum(value for value in trial.constraints.values() if value > 0)
    if violation > 0:
        return (2.0, violation)
    if trial.state == TrialState.COMPLETE:
        return (0.0, sign * (trial.value or 0.0))
    step, value = max(trial.intermediate_values.items(), default=(-1, 0.0))
    return (1.0, -float(step), sign * value)


class SubsetSampler(BaseSampler):
    """A sampler that sees some trials of a study only."""

    def __init__(self, inner: BaseSampler, trials: Sequence[FrozenTrial]) -> None:
        """Wraps a sampler.

        Args:
            inner: The sampler, which draws each hyperparameter independently.
            trials: The trials that it sees.
        """
        self._inner, self._trials = inner, trials

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns the hyperparameters that are drawn together: none."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns no values."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Returns the value of one hyperparameter from the wrapped sampler."""
        seen: Any = _StudyOf(study, self._trials)
        return self._inner.sample_independent(seen, trial, param_name, param_distribution)


class _StudyOf:
    """An Optuna study that has some of its trials only; replaces `Study._get_trials`, which samplers call."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        self._study, self._trials = study, trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]
