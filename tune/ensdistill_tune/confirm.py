"""Confirmation: the best few and the baselines again with fresh seeds, so that luck with one seed wins nothing.

The winner is chosen here, by its mean over seeds on validation; then, once, the test images are looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import numpy as np

from ensdistill.settings import Settings, setting
from ensdistill_tune.labels import trial_label
from ensdistill_tune.pareto import front, minimised, spread
from ensdistill_tune.record import TrialRecord, ranked

if TYPE_CHECKING:
    from ensdistill_tune.space import Study

RESAMPLES = 10_000
LEVEL = 0.05  # of all comparisons of one verdict together
POWER = 0.8  # the share of studies in which a true difference should be found


class Confirm(Settings):
    """What happens after the search."""

    best: int = setting(
        3, "How many of the best trials run again, and all baselines with them; 0 for none.", ge=0, le=100
    )
    seeds: int = setting(5, "How many fresh seeds each runs with.", ge=2, le=1000)


@dataclass(frozen=True)
class Candidate:
    """One trial of the search and its repeats, by seed."""

    trial: TrialRecord
    repeats: Sequence[TrialRecord]

    def values(self, metric: str) -> list[float]:
        """The metric at the end of every repeat, by seed."""
        return [repeat.last[metric] for repeat in self.repeats]

    def mean(self, metric: str) -> float:
        """Its mean over seeds."""
        return fmean(self.values(metric))

    def best(self, metric: str, mode: str) -> TrialRecord:
        """Its best repeat; of equals the first."""
        return ranked(self.repeats, metric, mode)[0]

    @property
    def label(self) -> str:
        """`baseline kd` or `024`."""
        return trial_label(self.trial)


def plan(trials: Sequence[TrialRecord], study: "Study") -> list[tuple[TrialRecord, int]]:
    """What is to be run again, with which seeds: the best few searched trials and every baseline that ran to its end.

    The fresh seeds are the next after those of the search. All candidates share them, so that they can be compared in
    pairs.
    """
    if not study.confirm.best:
        return []
    order, seed = _unlike(ranked(trials, study.objective, study.mode)), study.last_seed
    chosen = _best([t for t in order if not t.baseline], study) + [t for t in order if t.baseline]
    return [(trial, seed + 1 + k) for k in range(study.confirm.seeds) for trial in chosen]


def _unlike(order: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials without those whose settings are those of a baseline or of one before."""
    first = {trial.config_hash: trial for trial in (*reversed(order), *(t for t in order if t.baseline))}
    return [trial for trial in order if first[trial.config_hash] is trial or trial.baseline]


def _best(order: list[TrialRecord], study: "Study") -> list[TrialRecord]:
    """The best few; of several objectives the best in the first one, and others spread over the Pareto front."""
    if not study.against:
        return order[: study.confirm.best]
    return [order[n] for n in spread(points(order, study), study.confirm.best)]


def points(trials: Sequence[TrialRecord], study: "Study") -> list[tuple[float, ...]]:
    """The objectives of finished trials, less being better in all of them."""
    return [minimised([trial.last[name] for name in study.objectives], study.modes) for trial in trials]


def candidates(trials: Sequence[TrialRecord], repeats: Sequence[TrialRecord], study: "Study") -> list[Candidate]:
    """Each trial of the plan with its repeats, best mean first. One with a repeat that failed, or that has not run, is

    left out: it cannot be relied upon.
    """
    done = {(repeat.confirms, repeat.seed): repeat for repeat in repeats if repeat.state == "finished"}
    wanted: dict[int, list[TrialRecord | None]] = {}
    for trial, seed in plan(trials, study):
        wanted.setdefault(trial.number, []).append(done.get((trial.number, seed)))
    by_number = {trial.number: trial for trial in trials}
    whole = {number: [repeat for repeat in own if repeat] for number, own in wanted.items() if all(own)}
    sign = -1 if study.mode == "max" else 1
    found = [Candidate(by_number[number], own) for number, own in whole.items()]
    return sorted(found, key=lambda c: (sign * c.mean(study.objective), c.trial.number))


def candidates_on_the_front(order: Sequence[Candidate], study: "Study") -> list[Candidate]:
    """Those that no other one is better than in the means of all objectives; none if there is but one objective."""
    means = [minimised([c.mean(name) for name in study.objectives], study.modes) for c in order]
    return [order[n] for n in front(means)] if study.against and order else []


@dataclass(frozen=True)
class Comparison:
    """The difference of two candidates, pair by pair of the same seed."""

    wins: int  # in how many pairs the first is better
    pairs: int
    difference: float  # mean of first minus second
    low: float  # 95 % interval of the mean difference, by the bootstrap
    high: float
    sure_low: float  # the same by Student's t, allowing for the choice of the first among several
    sure_high: float

    @property
    def distinguishable(self) -> bool:
        """Whether both intervals leave zero out."""
        return (self.low > 0 or self.high < 0) and (self.sure_low > 0 or self.sure_high < 0)


def compare(first: Sequence[float], second: Sequence[float], mode: str, among: int = 1) -> Comparison:
    """Paired percentile bootstrap over seeds (Efron 1979), 10,000 resamples, the same ones every time.

    With few seeds that interval is too narrow: it leaves zero out whenever all pairs agree. So there is another beside
    it, of Student's t at 5 % shared out (Bonferroni) among so many candidates, of whom the first was chosen by the very
    seeds that judge it. Differences that are all equal have no spread: the sign test judges those. All know the spread
    over seeds, not that of other validation images.
    """
    from scipy import stats  # here: a slow import that few commands need

    apart = np.subtract(first, second)
    wins = int((apart > 0).sum() if mode == "max" else (apart < 0).sum())
    mean = float(apart.mean())
    if np.allclose(apart, mean, rtol=1e-9, atol=1e-12):  # as accuracies of few images may be: no spread to go by
        told = 2.0 ** (1 - len(apart)) <= LEVEL / among  # two-sided sign test
        sure_low, sure_high = (mean, mean) if told else (min(mean, 0.0), max(mean, 0.0))
        return Comparison(wins, len(apart), mean, mean, mean, sure_low, sure_high)
    interval = stats.bootstrap((apart,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0).confidence_interval
    half = float(stats.t.ppf(1 - LEVEL / 2 / among, len(apart) - 1) * stats.sem(apart))
    return Comparison(wins, len(apart), mean, float(interval.low), float(interval.high), mean - half, mean + half)


def power(effect: float, pairs: int, among: int = 1) -> float:
    """Returns the probability that `compare` finds a true difference with its sign, by the noncentral t distribution.

    Args:
        effect: The true mean difference in standard deviations of the differences between pairs.
        pairs: Number of pairs, at least 2.
        among: Number of candidates the first was chosen among (Bonferroni).

    References:
        Cohen 1988, Statistical power analysis for the behavioral sciences, chapter 2.
    """
    from scipy import stats  # here: a slow import that few commands need

    limit, shift = stats.t.ppf(1 - LEVEL / 2 / among, pairs - 1), abs(effect) * pairs**0.5
    return float(stats.nct.sf(limit, pairs - 1, shift))


def pairs_for_power(apart: Sequence[float], among: int, most: int) -> int | None:
    """Returns the number of pairs at which `compare` finds a difference as large as the observed one in 80 %.

    Args:
        apart: Observed differences, pair by pair.
        among: Number of candidates the first was chosen among (Bonferroni).
        most: The largest number to consider.

    Returns:
        More pairs than were observed; None if `most` do not suffice, or nothing can be said of the spread.
    """
    if len(apart) < 2 or not stdev(apart) or not fmean(apart):
        return None
    effect = fmean(apart) / stdev(apart)
    return next((n for n in range(len(apart) + 1, most + 1) if power(effect, n, among) >= POWER), None)


def verdict(order: Sequence[Candidate], metric: str, mode: str) -> str:
    """The winner against the best baseline in one plain sentence."""
    winner = order[0]
    baseline = next((c for c in order if c.trial.baseline), None)
    if baseline is None:
        return f"{winner.label} is the best of {len(order)} candidates; no baseline was confirmed beside it"
    if all(c.trial.baseline for c in order):
        return f"{winner.label} is the best of {len(order)} candidates; no searched settings were confirmed beside it"
    if winner is baseline:
        seeds = len(winner.repeats)
        return f"no searched settings beat {baseline.trial.baseline} as published in the mean of {seeds} seeds"
    among = sum(not c.trial.baseline for c in order)
    c = compare(winner.values(metric), baseline.values(metric), mode, among)
    name = metric.removeprefix("val/")
    interval = f"95 % interval {c.low:+.4f} to {c.high:+.4f}"
    figures = f"better in {c.wins} of {c.pairs} seeds, {name} {c.difference:+.4f}, {interval}"
    if c.distinguishable:
        return f"{winner.label} is better than {baseline.trial.baseline} as published: {figures}"
    if c.low > 0 or c.high < 0:
        figures += f" ({c.sure_low:+.4f} to {c.sure_high:+.4f} by Student's t, as it was chosen among {among})"
    return f"{winner.label} is not distinguishable from {baseline.trial.baseline} as published: {figures}"


def mean_and_spread(values: Sequence[float]) -> str:
    """`0.1039 +- 0.0038`: mean and standard deviation; one value alone has none."""
    return f"{fmean(values):.4f}" + (f" +- {stdev(values):.4f}" if len(values) > 1 else "")
