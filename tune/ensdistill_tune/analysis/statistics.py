"""Statistics of paired comparisons over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from ensdistill.runtime.lazy import np

RESAMPLES = 10_000
LEVEL = 0.05  # of all comparisons of one verdict together
POWER = 0.8  # the share of studies in which a true difference should be found


@dataclass(frozen=True)
class PairedComparison:
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


def compare(first: Sequence[float], second: Sequence[float], mode: str, among: int = 1) -> PairedComparison:
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
        return PairedComparison(wins, len(apart), mean, mean, mean, sure_low, sure_high)
    interval = stats.bootstrap((apart,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0).confidence_interval
    half = half_interval(apart.tolist(), LEVEL / among)
    return PairedComparison(wins, len(apart), mean, float(interval.low), float(interval.high), mean - half, mean + half)


def half_interval(values: Sequence[float], level: float = LEVEL) -> float:
    """Returns half of the interval of their mean at confidence 1 - level, by Student's t; 0 if all are equal."""
    from scipy import stats  # here: a slow import that few commands need

    return _critical_t(len(values), level) * float(stats.sem(values)) if np.ptp(values) else 0.0


def _critical_t(count: int, level: float) -> float:
    """The two-sided critical value of Student's t for the mean of so many values."""
    from scipy import stats  # here: a slow import that few commands need

    return float(stats.t.ppf(1 - level / 2, count - 1))


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

    return float(stats.nct.sf(_critical_t(pairs, LEVEL / among), pairs - 1, abs(effect) * pairs**0.5))


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
