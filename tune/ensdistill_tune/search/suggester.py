"""Suggests the settings of trials; adapts Optuna's ask-and-tell interface."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from ensdistill_tune.formatting import is_block
from ensdistill_tune.records.events import SettingsEnqueued
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.search.constraints import Constraints, violations
from ensdistill_tune.search.fitted_trials import FittedTrials, SubsetSampler, key_of
from ensdistill_tune.search.hyperparameter import Hyperparameter
from ensdistill_tune.search.optuna_study import directions_of, silent_study
from ensdistill_tune.search.search_space import Sampled, SearchSpace
from ensdistill_tune.search.searchers import Searcher

WORST_VIOLATION = 1e6  # maximum violation that Optuna receives; its Gaussian process requires finite values
REQUEST = "request"  # key in the stored state of a trial: the request that enqueued its settings


class OptunaSearcher:
    """Searcher of one study: obtains settings from Optuna and passes results to Optuna."""

    def __init__(
        self,
        space: SearchSpace,
        searcher: Searcher,
        objectives: Sequence[str],
        modes: Sequence[str],
        first: Sequence[Mapping[str, Any]] = (),
        constraints: Constraints | None = None,
    ) -> None:
        """Creates the searcher of a study.

        Args:
            space: The search space.
            searcher: The settings of the searcher.
            objectives: Names of the objectives.
            modes: `min` or `max` for each objective.
            first: Settings to evaluate first.
            constraints: Bounds, keyed by metric.
        """
        self._constraints = constraints or {}
        self._space, self._settings, self._objectives, self._first = space, searcher, objectives, first
        self._optuna = silent_study(directions_of(modes))
        self._distributions = {name: distribution_of(axis) for name, axis in space.axes.items()}
        self._storage = self._optuna._storage  # Optuna's samplers store their attributes in it
        self._noted: set[str] = set()
        self._enqueued = 0  # number of suggestions that came from requests
        self._trials: dict[int, optuna.Trial] = {}  # Optuna's trials, keyed by the trial number in the study
        limit = searcher.fitted_trials if len(modes) == 1 else None
        self._fitted, self._sign = limit and FittedTrials(limit), -1.0 if modes[0] == "max" else 1.0

    def suggest(self, number: int, enqueued: SettingsEnqueued | None = None) -> tuple[Sampled, dict[str, Any]] | None:
        """Suggests the settings of a trial.

        Args:
            number: Trial number.
            enqueued: Settings of a request; None if the searcher chooses the settings. A request uses up neither a
                point of `first` nor a grid cell.

        Returns:
            The settings, and the state that `restore` requires; None if no settings are left.
        """
        place = len(self._trials)
        given = self._fixed_values(place - self._enqueued) if enqueued is None else enqueued.settings
        if given is None:
            return None
        self._enqueued += enqueued is not None
        if given:
            self._optuna.enqueue_trial(self._as_choices(given))
        self._optuna.sampler = self._sampler(place)
        trial = self._optuna.ask()
        self._begun(trial)
        sampled = self._space.draw(lambda name, axis: _suggest(trial, name, axis))
        self._trials[number] = trial
        return sampled, self._sampler_state(place) | ({} if enqueued is None else {REQUEST: enqueued.request})

    def restore(self, trial: TrialRecord) -> None:
        """Restores a suggestion made by an earlier process, from the record of the trial."""
        self._enqueued += REQUEST in trial.memory
        self._optuna.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=self._as_choices(trial.sampled),
                distributions={name: self._distributions[name] for name in trial.sampled},
                system_attrs=trial.memory.get("trial", {}),
            )
        )
        for name, value in trial.memory.get("study", {}).items():
            self._storage.set_study_system_attr(self._optuna._study_id, name, value)
        known = self._optuna.get_trials(deepcopy=False)[-1]
        self._trials[trial.number] = optuna.Trial(self._optuna, known._trial_id)
        self._begun(self._trials[trial.number])
        for epoch in trial.epochs:
            self._report(trial, epoch)
        if trial.state not in ("running", "interrupted"):
            self.tell(trial)

    def report(self, trial: TrialRecord) -> None:
        """Passes the last report of a trial to Optuna."""
        self._report(trial, trial.last)

    def tell(self, trial: TrialRecord) -> None:
        """Reports the final state of a trial to Optuna: complete, pruned or failed.

        Ray's adapter for Optuna differs: it passes the last value of a pruned trial as the final value.
        """
        asked = self._trials[trial.number]
        if trial.state in ("finished", "pruned") and trial.epochs:
            for bound, violation in violations(self._constraints, trial.last).items():
                asked.set_constraint(bound, min(violation, WORST_VIOLATION))
        if trial.state == "finished":
            self._optuna.tell(asked, [trial.last[name] for name in self._objectives])
        elif trial.state != "interrupted":
            self._optuna.tell(asked, state=TrialState.PRUNED if trial.state == "pruned" else TrialState.FAIL)
        if self._fitted and trial.state != "interrupted":
            known = self._known()[asked.number]
            self._fitted.ended(asked.number, None if trial.state == "failed" else key_of(known, self._sign))

    def _sampler(self, place: int) -> optuna.samplers.BaseSampler:
        """Returns the sampler of one suggestion."""
        sampler = self._settings.sampler(_seed(self._settings.seed, place))
        if not self._fitted:
            return sampler
        known = self._known()
        return SubsetSampler(sampler, [known[place] for place in self._fitted.places])

    def _begun(self, trial: optuna.Trial) -> None:
        if self._fitted:
            self._fitted.begun(trial.number)

    def _sampler_state(self, place: int) -> dict[str, Any]:
        """Returns the attributes of the trial and of the study that Optuna stored with the last suggestion."""
        noted = self._storage.get_study_system_attrs(self._optuna._study_id)
        new = {name: value for name, value in noted.items() if name not in self._noted}
        self._noted |= new.keys()
        memory = {"trial": dict(self._known()[place].system_attrs), "study": new}
        return {whose: what for whose, what in memory.items() if what}

    def _as_choices(self, sampled: Sampled) -> Sampled:
        """Returns the values in Optuna's representation."""
        return {name: choice_of(self._space.axes[name], value) for name, value in sampled.items()}

    def _known(self) -> list[optuna.trial.FrozenTrial]:
        return self._optuna.get_trials(deepcopy=False)

    def _report(self, trial: TrialRecord, epoch: Mapping[str, float]) -> None:
        if len(self._objectives) == 1:  # Optuna supports intermediate values only with a single objective
            self._trials[trial.number].report(epoch[self._objectives[0]], int(epoch["epoch"]))

    def _fixed_values(self, place: int) -> Sampled | None:
        """Returns the values of one suggestion that are fixed in advance; the sampler chooses all other values.

        The suggestions begin with the settings that are to be evaluated first. Each later suggestion uses the values
        fixed by the searcher or, if there are none, the next cell of the grid.
        """
        if place < len(self._first):
            return dict(self._first[place])
        given = self._settings.fixed_values(self._space, place - len(self._first))
        return given if given is None or given else self._space.grid_cell(place - len(self._first))


def _seed(seed: int, place: int) -> int:
    return int(np.random.SeedSequence([seed, place]).generate_state(1)[0])


def _suggest(trial: optuna.Trial, name: str, axis: Hyperparameter) -> Any:
    if axis.is_categorical:
        choices = choices_of(axis)
        chosen = trial.suggest_categorical(name, choices)
        return chosen if choices is axis.values else axis.values[choices.index(chosen)]
    if axis.kind == "integer":
        return trial.suggest_int(name, *axis.values)
    return trial.suggest_float(name, *axis.values, log=axis.kind == "log_uniform")


def distribution_of(axis: Hyperparameter) -> BaseDistribution:
    """Returns the distribution of a hyperparameter as an Optuna distribution."""
    if axis.is_categorical:
        return CategoricalDistribution(choices_of(axis))
    if axis.kind == "integer":
        return IntDistribution(*axis.values)
    low, high = axis.values
    return FloatDistribution(low, high, log=axis.kind == "log_uniform")


def choices_of(axis: Hyperparameter) -> list[Any]:
    """Returns the listed values of a hyperparameter in Optuna's representation.

    Scalar values stay unchanged. Blocks of settings become JSON strings, which are unique, unlike the short forms in
    tables.

    Args:
        axis: A categorical hyperparameter.
    """
    if not any(map(is_block, axis.values)):
        return axis.values
    return [json.dumps(value, sort_keys=True) for value in axis.values]


def choice_of(axis: Hyperparameter, value: Any) -> Any:
    """Returns one value of a hyperparameter in Optuna's representation."""
    return json.dumps(value, sort_keys=True) if axis.is_categorical and any(map(is_block, axis.values)) else value
