"""Importance of the searched settings: the share of the variance between trials that each setting alone explains.

Functional ANOVA by Optuna's evaluator, with an interval and a noise level for each share.

Response. All trials that have ended count, not only the completed ones. Early stopping removes the bad trials, and
among the remaining ones every effect appears smaller than it is. Trials are therefore ranked: first the completed
trials by their objective; then the pruned trials, by their number of epochs and among equals by their last value; then
the failed trials. The rank, scaled to 0..1, is the variable that is explained.

Settings. A numeric range is divided into 16 steps (on a logarithmic scale for log-uniform settings). Choices keep the
order in which they are listed. The method requires a value for every setting of every trial. A setting whose condition
is not met gets the middle of its range, so the effect of a conditional setting is weakened by the trials in which it is
inactive. If settings changed during training (population-based training), the last ones count: they distinguish the
trial from its parent, and its final value was reached under them. Baselines are excluded, because most of their
settings are not searched ones.

Uncertainty. The trials are resampled (bootstrap). For each resample a forest is fitted to all settings and to a copy of
each setting that is shuffled among the trials and explains nothing except by chance (Boruta). The share is the mean
over resamples, with the interval of their middle 90 %. The noise level of a setting is the 95 % quantile of the shares
of its shuffled copies.

References:
    Hutter et al. 2014, ICML (functional ANOVA). Kursa and Rudnicki 2010 (Boruta).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import create_trial

from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.search.hyperparameter import Hyperparameter
from ensdistill_tune.search.optuna_study import silent_study
from ensdistill_tune.study.study_config import StudyConfig

FEWEST = 8  # trials; with fewer, no effect can be distinguished from chance
RESAMPLES, TREES, DEPTH = 25, 8, 6  # 25 forests of 8 trees: seconds for a thousand trials
STEPS = 16  # of a numeric range; more steps take longer and show nothing new

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """Importance of one searched setting.

    Attributes:
        name: Dotted name of the setting.
        share: Share of the variance of the ranks of the trials, 0 to 1. Interactions are assigned to no setting.
        low: Lower end of the 90 % interval of the share.
        high: Its upper end.
        noise: Noise level: 95 % quantile of the share of shuffled values.
    """

    name: str
    share: float
    low: float
    high: float
    noise: float

    @property
    def matters(self) -> bool:
        """True if the whole interval lies above the noise level."""
        return self.low > self.noise


def importance(trials: Sequence[TrialRecord], study: StudyConfig) -> list[Importance]:
    """Returns the importance of all searched settings, the largest share first. Deterministic.

    Args:
        trials: Trials of the study; only searched trials that have ended count.
        study: The settings.

    Returns:
        One entry for each searched setting; empty if `why_unknown` returns a reason.
    """
    if why_unknown(trials, study):
        return []
    own = _over(trials)
    places = np.array([[_place(axis, trial, name) for name, axis in study.search.items()] for trial in own])
    merit = merits(own, study)
    shares = np.array([_shares(places, merit, seed) for seed in range(RESAMPLES)])
    real, shuffled = np.split(shares, 2, axis=1)
    low, high = np.quantile(real, [0.05, 0.95], axis=0)
    columns = zip(study.search, real.mean(axis=0), low, high, np.quantile(shuffled, 0.95, axis=0), strict=True)
    found = [Importance(name, *map(float, figures)) for name, *figures in columns]
    return sorted(found, key=lambda one: -one.share)


def why_unknown(trials: Sequence[TrialRecord], study: StudyConfig) -> str | None:
    """Returns why importance cannot be computed, as a sentence; None if it can."""
    own = _over(trials)
    if len(study.search) == 1:
        return "only one setting was searched; importance compares at least two"
    if len(own) < FEWEST:
        return f"{len(own)} searched trials are too few to distinguish effects from chance (at least {FEWEST})"
    if np.ptp(merits(own, study)) == 0:
        return "all trials have the same result"
    return None


def merits(trials: Sequence[TrialRecord], study: StudyConfig) -> Array:
    """Returns the scaled rank of each trial.

    Args:
        trials: Trials that have ended.
        study: The settings.

    Returns:
        Ranks of shape (trials,) in 0..1, larger is better; equal trials have equal ranks.
    """
    from scipy.stats import rankdata  # here: a slow import that few commands need

    keys = [_order(trial, study) for trial in trials]
    worse = {key: -place for place, key in enumerate(sorted(set(keys)))}
    ranks = rankdata([worse[key] for key in keys])
    return np.asarray((ranks - 1) / max(1, len(trials) - 1))


def _over(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Returns the searched trials that have ended."""
    return [trial for trial in trials if trial.kind == "search" and trial.state in ("finished", "pruned", "failed")]


def _order(trial: TrialRecord, study: StudyConfig) -> tuple[float, float, float]:
    """Returns a sort key; smaller is better."""
    if trial.state == "failed" or not trial.epochs:
        return (2, 0, 0)
    value = trial.last[study.objective] * (-1 if study.mode == "max" else 1)
    return (0, 0, value) if trial.state == "finished" else (1, -trial.last["epoch"], value)


def _place(axis: Hyperparameter, trial: TrialRecord, name: str) -> float:
    """Returns the position of the trial's value in the range of the setting, 0 to 1."""
    value = trial.settings_at_last.get(name, axis.from_unit_interval(0.5))
    if axis.is_categorical:
        return (axis.values.index(value) + 0.5) / len(axis.values)
    scale = math.log if axis.kind == "log_uniform" else float
    low, high, here = map(scale, [*axis.values, value])
    step = int(STEPS * (here - low) / (high - low))
    return (min(max(step, 0), STEPS - 1) + 0.5) / STEPS


def _shares(places: Array, merit: Array, seed: int) -> Array:
    """Returns the share of each setting in one resample of the trials, followed by those of the shuffled copies."""
    chance = np.random.default_rng(seed)
    chosen = chance.integers(len(places), size=len(places))
    both = np.hstack([places, chance.permuted(places, axis=0)])[chosen]
    names = [f"{n:04d}" for n in range(both.shape[1])]
    axes: dict[str, BaseDistribution] = {name: FloatDistribution(0, 1) for name in names}
    study = silent_study()
    for row, value in zip(both.tolist(), merit[chosen].tolist(), strict=True):
        study.add_trial(create_trial(value=value, params=dict(zip(names, row, strict=True)), distributions=axes))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, max_depth=DEPTH, seed=seed)
    try:
        shares: Mapping[str, float] = evaluator.evaluate(study)
    except RuntimeError:  # no tree found a difference, for instance with few trials of which most failed
        return np.zeros(len(names))
    return np.array([shares[name] for name in names])
