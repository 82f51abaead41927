"""Selects the trials to which a searcher's model is fitted, for studies with thousands of trials.

For every suggestion and every hyperparameter, Optuna fits a tree-structured Parzen estimator to all trials. The time
per suggestion therefore grows with the number of trials. The estimator compares the density of the best trials with the
density of all other trials. This module keeps the best trials and an evenly spaced sample of the rest; the sample has
about the same distribution as the rest.
"""

from bisect import insort
from collections.abc import Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

BEST = 25  # maximum number of trials in Optuna's model of the good trials

Key = tuple[float, ...]  # sort key of ended trials, best first


class FittedTrials:
    """Selection of a study's trials; it does not depend on the order in which the trials ended.

    If at most `limit` trials have ended, all of them are selected. Otherwise, two groups are selected: the best trials,
    and the trials whose number in Optuna's study is a multiple of 2^k. k is the smallest integer for which the second
    group has at most `limit` trials. Running trials are always selected.
    """

    def __init__(self, limit: int) -> None:
        """Creates an empty selection.

        Args:
            limit: Maximum number of selected ended trials, in addition to the best ones.
        """
        self._limit, self._step = limit, 1
        self._running, self._even = set[int](), list[int]()
        self._best: list[tuple[Key, int]] = []

    def begun(self, place: int) -> None:
        """Adds a running trial.

        Args:
            place: Number of the trial in Optuna's study.
        """
        self._running.add(place)

    def ended(self, place: int, key: Key | None) -> None:
        """Adds an ended trial.

        Args:
            place: Number of the trial in Optuna's study.
            key: Sort key of the trial; None for a failed trial, which no model uses.
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
    """Returns the sort key of an ended trial for a single objective; Optuna's estimator uses the same order.

    Trials that meet the constraints come first: completed trials by their value, then pruned trials by their last epoch
    and value. Trials that break a constraint come last, ordered by their violation.

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
    """A sampler that uses only some trials of a study."""

    def __init__(self, inner: BaseSampler, trials: Sequence[FrozenTrial]) -> None:
        """Wraps a sampler.

        Args:
            inner: The sampler, which must draw each hyperparameter independently.
            trials: The trials that the sampler uses.
        """
        self._inner, self._trials = inner, trials

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns an empty space, because no hyperparameters are drawn jointly."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns no values, because no hyperparameters are drawn jointly."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Returns the value of one hyperparameter from the wrapped sampler."""
        seen: Any = _StudyOf(study, self._trials)
        return self._inner.sample_independent(seen, trial, param_name, param_distribution)


class _StudyOf:
    """An Optuna study that exposes only some of its trials; replaces `Study._get_trials`, which samplers call."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        self._study, self._trials = study, trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]
