"""Importance of settings: share of the variance between trials that each setting alone explains, with a p-value.

The share is computed by functional ANOVA (Hutter et al. 2014, ICML) with Optuna's evaluator, which fits a random forest
to the trials. The significance is computed by `effect_test`.

Merit. The analysis includes stopped and failed trials, because early stopping removes bad trials: among the completed
trials alone, every effect would look smaller than it is. Completed trials are ranked first, by objective. Stopped
trials follow, ordered by number of epochs (ties by last value). Failed trials are last. The merit of a trial is its
rank, scaled to the range 0 to 1.

Settings. For the forest, the range of a numeric setting is divided into 16 steps, on a logarithmic scale if the setting
is log-uniform. The values of a choice are numbered in the order in which they are listed. The forest requires a value
of every setting in every trial, so an inactive setting is given the midpoint of its range. The test of a setting uses
only the trials in which this setting is active. If settings changed during training (population-based training), the
last values are used. Baselines are excluded, because most of their settings are not searched.

Interval. The trials are resampled (bootstrap), and a forest is grown on each resample. The reported share is the mean
of the shares over all resamples, and its interval contains the middle 90 % of these shares.

Limits. The test assumes that settings are independent, as in random search and grids. A model-based searcher varies
several settings together, so part of the effect of one setting can be attributed to another.
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

FEWEST = 8  # minimum number of trials; with fewer trials, no effect can be detected
RESAMPLES, TREES, DEPTH = 25, 8, 6  # forests, trees per forest, tree depth; takes seconds for 1000 trials
STEPS = 16  # number of steps in a numeric range; more steps take longer without benefit

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """Importance of one searched setting.

    Attributes:
        name: Name of the setting.
        share: Share of the variance in merit that the setting alone explains, 0 to 1; interactions are not attributed
            to any setting.
        low: Lower end of the 90 % interval of the share.
        high: Upper end of this interval.
        p: p-value of the effect, corrected for the number of settings.
    """

    name: str
    share: float
    low: float
    high: float
    p: float

    @property
    def matters(self) -> bool:
        """True if the effect is significant at 5 %."""
        return self.p <= LEVEL


def importance(trials: Sequence[TrialRecord], study: StudyConfig) -> list[Importance]:
    """Returns the importance of all searched settings, largest first; empty if `why_unknown` returns a reason."""
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
    """Returns the reason why the importance is unknown, as a clause; None if the importance is known."""
    own = _over(trials)
    if len(study.search) == 1:
        return "only one setting was searched; at least two are required"
    if len(own) < FEWEST:
        few = f"{counted(len(own), 'search trial')} {verb(len(own))} too few"
        return f"{few} to detect an effect ({FEWEST} are required)"
    if np.ptp(merits(own, study)) == 0:
        return "all trials have the same result"
    return None


def merits(trials: Sequence[TrialRecord], study: StudyConfig) -> Array:
    """Returns the merit of each trial: its rank, scaled to the range 0 (worst) to 1 (best); ties share a rank."""
    from scipy.stats import rankdata  # imported here, because it is slow and rarely used

    keys = [_order(trial, study) for trial in trials]
    worse = {key: -place for place, key in enumerate(sorted(set(keys)))}
    ranks = rankdata([worse[key] for key in keys])
    return np.asarray((ranks - 1) / max(1, len(trials) - 1))


def _over(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Returns the search trials that have ended."""
    return [trial for trial in trials if trial.kind == "search" and trial.state in ("finished", "pruned", "failed")]


def _order(trial: TrialRecord, study: StudyConfig) -> tuple[float, float, float]:
    """Returns the sort key of a trial; smaller is better."""
    if trial.state == "failed" or not trial.epochs:
        return (2, 0, 0)
    value = trial.last[study.objective] * (-1 if study.mode == "max" else 1)
    return (0, 0, value) if trial.state == "finished" else (1, -trial.last["epoch"], value)


def _place(axis: Hyperparameter, trial: TrialRecord, name: str) -> float:
    """Returns the position of the trial's value in the range of the setting, from 0 to 1."""
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
    """Returns the share of variance that each setting explains in one resample of the trials."""
    chosen = np.random.default_rng(seed).integers(len(places), size=len(places))
    names = [f"{n:04d}" for n in range(places.shape[1])]
    axes: dict[str, BaseDistribution] = {name: FloatDistribution(0, 1) for name in names}
    study = silent_study()
    for row, value in zip(places[chosen].tolist(), merit[chosen].tolist(), strict=True):
        study.add_trial(create_trial(value=value, params=dict(zip(names, row, strict=True)), distributions=axes))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, max_depth=DEPTH, seed=seed)
    try:
        shares: Mapping[str, float] = evaluator.evaluate(study)
    except RuntimeError:  # no tree found a difference, for example because most trials failed
        return np.zeros(len(names))
    return np.array([shares[name] for name in names])
