"""Reliability of early stopping: rank correlation of the trials at an epoch with their final ranking."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensdistill_tune.records.trial_record import TrialRecord, of_kind
from ensdistill_tune.search.pareto import rungs
from ensdistill_tune.search.schedulers import Asha, Hyperband, Median
from ensdistill_tune.study.study_config import StudyConfig

FEWEST = 4  # trials; fewer have no meaningful ranking
RESAMPLES = 400
EVENLY = 4  # epochs, where the scheduler has no rungs
SELECTED = (
    "Only completed trials have a final value. Where others were stopped early, the completed ones are the better and"
    " more similar ones, so their correlation underestimates that of all trials."
)


@dataclass(frozen=True)
class RungCorrelation:
    """One epoch against the end."""

    epoch: int
    tau: float  # Kendall's tau-b of the values there and the final ones: 1 is the same order, 0 is none
    low: float  # 95 % interval, by the bootstrap over trials
    high: float
    by_chance: float  # p-value of the test of no association
    trials: int


def foresight(trials: Sequence[TrialRecord], study: StudyConfig) -> list[RungCorrelation]:
    """Returns one correlation for each rung of the scheduler, or for evenly spaced epochs.

    Empty with fewer than four completed trials of the search (see SELECTED). Kendall 1945, Biometrika.
    """
    own = of_kind(study.rank(trials), "search")
    found = (_at(epoch, own, study.objective) for epoch in epochs_to_ask(study))
    return [one for one in found if one is not None]


def selected(trials: Sequence[TrialRecord]) -> bool:
    """Returns whether early stopping has selected the completed trials, so that SELECTED applies."""
    return any(trial.kind == "search" and trial.state == "pruned" for trial in trials)


def epochs_to_ask(study: StudyConfig) -> list[int]:
    """Returns the epochs at which the scheduler compares trials; of rules without rungs, a few evenly spaced ones."""
    last, rule = study.epochs, study.scheduler
    if isinstance(rule, Asha | Hyperband):
        return rungs(min(rule.grace_epochs, last), rule.reduction_factor, last)
    first = rule.grace_epochs if isinstance(rule, Median) else last // (EVENLY + 1)
    return sorted({int(epoch) for epoch in np.linspace(max(1, first), last, EVENLY, endpoint=False) if epoch < last})


def _at(epoch: int, trials: Sequence[TrialRecord], metric: str) -> RungCorrelation | None:
    pairs = [(value, t.last[metric]) for t in trials if (value := t.at(epoch, metric)) is not None]
    if len(pairs) < FEWEST:
        return None
    then, final = np.array(pairs).T
    tau, by_chance = _tau(then, final)
    if np.isnan(tau):
        return None  # all alike
    chance = np.random.default_rng(epoch)
    chosen = chance.integers(len(pairs), size=(RESAMPLES, len(pairs)))
    taus = [_tau(then[some], final[some])[0] for some in chosen]
    low, high = np.nanquantile(taus, [0.025, 0.975])  # a resample of one trial alone has no order
    return RungCorrelation(epoch, tau, float(low), float(high), by_chance, len(pairs))


def _tau(then: NDArray[np.float64], final: NDArray[np.float64]) -> tuple[float, float]:
    """Tau-b, and the p-value of the test of no association, exact where there are no ties."""
    from scipy.stats import kendalltau  # here: a slow import that few commands need

    found = kendalltau(then, final)
    return float(found.statistic), float(found.pvalue)
