"""Which settings mattered: for each the share of all differences between trials that it alone explains, and how sure

that is. Functional ANOVA (Hutter et al. 2014, ICML) by Optuna's evaluator.

Merit. All trials count that are over, not only those that ran to their end: early stopping takes the bad ones away, and
among what is left every effect looks smaller than it is. So trials are ordered: those that ran to their end by their
objective; then those that were stopped, the further they came the better, among equals by the value there; then those
that failed. The place in that order, from 0 to 1, is what is explained.

Settings. Numbers are cut into 16 steps of their range (log-uniform ones in the logarithm), choices are taken in the
order in which they are listed. A setting that a trial does not have, since its condition is not met, is filled in with
the middle of its range, as the method wants all settings of all trials; so a conditional setting shows what it does
where it is active, weakened by the trials where it is not. Of a trial whose settings changed on the way (population
based training) those at its end count: they are what sets it apart from the trial that it began as, and its merit was
reached under them. Baselines do not take part: most of their settings are not those of the search.

Certainty. The trials are resampled (bootstrap), and each time a forest is grown on all settings and, beside them, on a
copy of each that is shuffled among the trials and so explains nothing but by luck (Kursa and Rudnicki 2010, Boruta).
The share is the mean over resamples, with the interval of their middle 90 %; the noise level of a setting is what 95 %
of its shuffled copies stay below.
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

FEWEST = 8  # trials; with fewer, nothing is told from luck
RESAMPLES, TREES, DEPTH = 25, 8, 6  # 25 forests of 8 trees: seconds for a thousand trials
STEPS = 16  # into which a range of numbers is cut: more cost time and show nothing

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """One searched setting."""

    name: str
    share: float  # of the variance of the trials' merit, 0 to 1; shares of interactions are nobody's
    low: float  # 90 % interval of the share
    high: float
    noise: float  # the share that shuffled values stay below, 95 times in 100

    @property
    def matters(self) -> bool:
        """Whether the whole interval lies above the noise level."""
        return self.low > self.noise


def importance(trials: Sequence[TrialRecord], study: StudyConfig) -> list[Importance]:
    """All searched settings, the most important first; empty if `why_unknown` has a reason. The same every time."""
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
    return sorted(found, key=lambda knob: -knob.share)


def why_unknown(trials: Sequence[TrialRecord], study: StudyConfig) -> str | None:
    """Why nothing can be said about importance, in a plain sentence; None if something can."""
    own = _over(trials)
    if len(study.search) == 1:
        return "only one setting was searched, so there is nothing to compare it with"
    if len(own) < FEWEST:
        return f"{len(own)} searched trials are too few to tell effects from luck ({FEWEST} are needed)"
    if np.ptp(merits(own, study)) == 0:
        return "all trials came out alike"
    return None


def merits(trials: Sequence[TrialRecord], study: StudyConfig) -> Array:
    """The merit of each trial, 0 to 1 by rank, more being better; equal ones share their place."""
    from scipy.stats import rankdata  # here: a slow import that few commands need

    keys = [_order(trial, study) for trial in trials]
    worse = {key: -place for place, key in enumerate(sorted(set(keys)))}
    ranks = rankdata([worse[key] for key in keys])
    return np.asarray((ranks - 1) / max(1, len(trials) - 1))


def _over(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The searched trials of which it is known what came of them."""
    return [trial for trial in trials if trial.kind == "search" and trial.state in ("finished", "pruned", "failed")]


def _order(trial: TrialRecord, study: StudyConfig) -> tuple[float, float, float]:
    """Less is better."""
    if trial.state == "failed" or not trial.epochs:
        return (2, 0, 0)
    value = trial.last[study.objective] * (-1 if study.mode == "max" else 1)
    return (0, 0, value) if trial.state == "finished" else (1, -trial.last["epoch"], value)


def _place(axis: Hyperparameter, trial: TrialRecord, name: str) -> float:
    """Where the trial's value lies on the axis, from 0 to 1."""
    value = trial.settings_at_last.get(name, axis.from_unit_interval(0.5))
    if axis.is_categorical:
        return (axis.values.index(value) + 0.5) / len(axis.values)
    scale = math.log if axis.kind == "log_uniform" else float
    low, high, here = map(scale, [*axis.values, value])
    step = int(STEPS * (here - low) / (high - low))
    return (min(max(step, 0), STEPS - 1) + 0.5) / STEPS


def _shares(places: Array, merit: Array, seed: int) -> Array:
    """What each setting explains in one resample of the trials, and after them what their shuffled copies explain."""
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
    except RuntimeError:  # no tree found a difference: few trials, of which most failed, say
        return np.zeros(len(names))
    return np.array([shares[name] for name in names])
