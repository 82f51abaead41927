"""Importance of settings: the share of all differences between trials that each explains alone, and its significance.

Functional ANOVA (Hutter et al. 2014, ICML) by the evaluator of Optuna gives the share, `effect_test` the significance.

Merit. All trials that have ended count, not only those that completed: early stopping removes the bad ones, and among
the rest every effect looks smaller than it is. So trials are ordered: completed ones by their objective; then stopped
ones by the number of their epochs, ties by the value there; then failed ones. The rank, from 0 to 1, is explained.

Settings. The forest gets numbers in 16 steps of their range (log-uniform ones in the logarithm) and choices in their
listed order. It requires all settings of all trials, so a setting whose condition is not met gets the middle of its
range; the test uses the trials that have the setting. Of a trial whose settings changed during training
(population-based training) the last ones count: its merit was reached under them. Baselines do not take part, because
most of their settings are not those of the search.

Interval. The trials are resampled (bootstrap), and a forest is grown on each resample: the share is the mean over
resamples, its interval the middle 90 %.

Limits. The test regards settings as independent of each other, as random search and grids draw them. A model-based
searcher moves several settings together, so a setting can get part of the effect of another one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import create_trial

from ensdistill.runtime.text import counted, verb
from ensdistill_tune.analysis.effect_test import LEVEL, Column, p_values
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.search.hyperparameter import Hyperparameter
from ensdistill_tune.search.optuna_study import silent_study
from ensdistill_tune.study.study_config import StudyConfig

FEWEST = 8  # trials; fewer show no effect
RESAMPLES, TREES, DEPTH = 25, 8, 6  # 25 forests of 8 trees: seconds for a thousand trials
STEPS = 16  # of a range of numbers: more cost time and add nothing

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """One searched setting.

    Attributes:
        name: Name of the setting.
        share: Share of the variance of the trials' merit, 0 to 1; shares of interactions belong to no setting.
        low: Lower end of the 90 % interval of the share.
        high: Upper end.
        p: p-value of the effect, corrected for the number of settings.
    """

    name: str
    share: float
    low: float
    high: float
    p: float

    @property
    def matters(self) -> bool:
        """Whether the effect is significant at 5 %."""
        return self.p <= LEVEL


def importance(trials: Sequence[TrialRecord], study: StudyConfig) -> list[Importance]:
    """Returns all searched settings, the most important first; empty if `why_unknown` has a reason."""
    if why_unknown(trials, study):
        return []
    own = _over(trials)
    places = np.array([[_place(axis, trial, name) for name, axis in study.search.items()] for trial in own])
    merit = merits(own, study)
    shares = np.array([_shares(places, merit, seed) for seed in range(RESAMPLES)])
    low, high = np.quantile(shares, [0.05, 0.95], axis=0)
    significance = p_values([_column(name, axis, own) for name, axis in study.search.items()], merit)
    columns = zip(study.search, shares.mean(axis=0), low, high, significance, strict=True)
    found = [Importance(name, *map(float, figures)) for name, *figures in columns]
    return sorted(found, key=lambda one: -one.share)


def why_unknown(trials: Sequence[TrialRecord], study: StudyConfig) -> str | None:
    """Returns why the importance is unknown, as part of a sentence; None if it is known."""
    own = _over(trials)
    if len(study.search) == 1:
        return "only one setting was searched; importance compares at least two"
    if len(own) < FEWEST:
        few = f"{counted(len(own), 'searched trial')} {verb(len(own))} too few"
        return f"{few} to detect an effect ({FEWEST} are required)"
    if np.ptp(merits(own, study)) == 0:
        return "all trials have the same result"
    return None


def merits(trials: Sequence[TrialRecord], study: StudyConfig) -> Array:
    """Returns the merit of each trial, 0 to 1 by rank, more being better; ties share their rank."""
    from scipy.stats import rankdata  # here: a slow import that few commands need

    keys = [_order(trial, study) for trial in trials]
    worse = {key: -place for place, key in enumerate(sorted(set(keys)))}
    ranks = rankdata([worse[key] for key in keys])
    return np.asarray((ranks - 1) / max(1, len(trials) - 1))


def _over(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Returns the searched trials that have ended."""
    return [trial for trial in trials if trial.kind == "search" and trial.state in ("finished", "pruned", "failed")]


def _order(trial: TrialRecord, study: StudyConfig) -> tuple[float, float, float]:
    """Returns the sort key of a trial; less is better."""
    if trial.state == "failed" or not trial.epochs:
        return (2, 0, 0)
    value = trial.last[study.objective] * (-1 if study.mode == "max" else 1)
    return (0, 0, value) if trial.state == "finished" else (1, -trial.last["epoch"], value)


def _place(axis: Hyperparameter, trial: TrialRecord, name: str) -> float:
    """Returns the position of the trial's value in its range, from 0 to 1."""
    value = trial.settings_at_last.get(name, axis.from_unit_interval(0.5))
    if axis.is_categorical:
        return (axis.values.index(value) + 0.5) / len(axis.values)
    scale = math.log if axis.kind == "log_uniform" else float
    low, high, here = map(scale, [*axis.values, value])
    step = int(STEPS * (here - low) / (high - low))
    return (min(max(step, 0), STEPS - 1) + 0.5) / STEPS


def _column(name: str, axis: Hyperparameter, trials: Sequence[TrialRecord]) -> Column:
    known = [_place(axis, trial, name) if name in trial.settings_at_last else math.nan for trial in trials]
    return Column(np.array(known), axis.is_categorical)


def _shares(places: Array, merit: Array, seed: int) -> Array:
    """Returns the share of each setting in one resample of the trials."""
    chosen = np.random.default_rng(seed).integers(len(places), size=len(places))
    names = [f"{n:04d}" for n in range(places.shape[1])]
    axes: dict[str, BaseDistribution] = {name: FloatDistribution(0, 1) for name in names}
    study = silent_study()
    for row, value in zip(places[chosen].tolist(), merit[chosen].tolist(), strict=True):
        study.add_trial(create_trial(value=value, params=dict(zip(names, row, strict=True)), distributions=axes))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, max_depth=DEPTH, seed=seed)
    try:
        shares: Mapping[str, float] = evaluator.evaluate(study)
    except RuntimeError:  # no tree found a difference, for example where most trials failed
        return np.zeros(len(names))
    return np.array([shares[name] for name in names])
