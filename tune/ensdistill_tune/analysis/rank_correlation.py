"""Reliability of early stopping: rank correlation between the best value up to an epoch and the final value."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensdistill_tune.records.trial_record import TrialRecord, of_kind
from ensdistill_tune.search.pareto import rungs
from ensdistill_tune.search.schedulers import Asha, Hyperband, Median
from ensdistill_tune.study.study_config import StudyConfig

FEWEST = 4  # minimum number of trials for a meaningful correlation
RESAMPLES = 400
EVENLY = 4  # number of evenly spaced epochs at which the correlation is computed if the scheduler has no rungs
SELECTED = (
    "Only completed trials can be compared. Early stopping keeps the better trials, whose results differ less than "
    "those of all trials. The rank correlation is therefore lower than it would be over all trials."
)


@dataclass(frozen=True)
class RungCorrelation:
    """Rank correlation between the best values up to one epoch and the final values.

    Attributes:
        epoch: The epoch.
        tau: Kendall's tau-b, -1 to 1: 1 means the same order, 0 no association.
        low: Lower end of the 95 % interval, from a bootstrap over trials.
        high: Upper end of the interval.
        by_chance: Two-sided p-value: the probability of a tau at least this far from 0 if there is no association.
        trials: Number of trials.
    """

    epoch: int
    tau: float
    low: float
    high: float
    by_chance: float
    trials: int


def foresight(trials: Sequence[TrialRecord], study: StudyConfig) -> list[RungCorrelation]:
    """Returns the rank correlations at the rungs of the scheduler, or at evenly spaced epochs.

    The result is deterministic.

    Args:
        trials: Trials of the study; only completed search trials are used (see `SELECTED`).
        study: The settings.

    Returns:
        One entry for each epoch; empty if fewer than four trials have completed.

    References:
        Kendall 1945, Biometrika.
    """
    own = of_kind(study.rank(trials), "search")
    found = (_at(epoch, own, study) for epoch in epochs_to_ask(study))
    return [one for one in found if one is not None]


def selected(trials: Sequence[TrialRecord]) -> bool:
    """Returns whether early stopping has stopped any search trials, in which case the note `SELECTED` applies."""
    return any(trial.kind == "search" and trial.state == "pruned" for trial in trials)


def epochs_to_ask(study: StudyConfig) -> list[int]:
    """Returns the epochs at which the scheduler compares trials, or evenly spaced epochs if it has no rungs."""
    last, rule = study.epochs, study.scheduler
    if isinstance(rule, Asha | Hyperband):
        return rungs(min(rule.grace_epochs, last), rule.reduction_factor, last)
    first = rule.grace_epochs if isinstance(rule, Median) else last // (EVENLY + 1)
    return sorted({int(epoch) for epoch in np.linspace(max(1, first), last, EVENLY, endpoint=False) if epoch < last})


def _at(epoch: int, trials: Sequence[TrialRecord], study: StudyConfig) -> RungCorrelation | None:
    metric, mode = study.objective, study.mode
    pairs = [(best, t.last[metric]) for t in trials if (best := t.best_until(epoch, metric, mode)) is not None]
    if len(pairs) < FEWEST:
        return None
    then, final = np.array(pairs).T
    tau, by_chance = _tau(then, final)
    if np.isnan(tau):
        return None  # all values are equal
    chance = np.random.default_rng(epoch)
    chosen = chance.integers(len(pairs), size=(RESAMPLES, len(pairs)))
    taus = [_tau(then[some], final[some])[0] for some in chosen]
    low, high = np.nanquantile(taus, [0.025, 0.975])  # tau is NaN if a resample contains only copies of one trial
    return RungCorrelation(epoch, tau, float(low), float(high), by_chance, len(pairs))


def _tau(then: NDArray[np.float64], final: NDArray[np.float64]) -> tuple[float, float]:
    """Returns tau-b and the p-value for the null hypothesis of no association; the p-value is exact without ties."""
    from scipy.stats import kendalltau  # imported here, because it is slow and rarely used

    found = kendalltau(then, final)
    return float(found.statistic), float(found.pvalue)
