"""Statistics of paired comparisons over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from ensdistill.runtime.lazy import np

RESAMPLES = 10_000
LEVEL = 0.05  # family-wise error over all comparisons of one verdict
POWER = 0.8  # required probability of finding a true difference


@dataclass(frozen=True)
class PairedComparison:
    """Difference between two candidates, paired by seed.

    Attributes:
        wins: Number of pairs in which the first candidate is better.
        pairs: Number of pairs.
        difference: Mean of first minus second.
        low: Lower end of the 95 % bootstrap interval of the mean difference.
        high: Its upper end.
        sure_low: Lower end of the interval by Student's t, Bonferroni-corrected for the number of candidates.
        sure_high: Upper end of that interval.
    """

    wins: int
    pairs: int
    difference: float
    low: float
    high: float
    sure_low: float
    sure_high: float

    @property
    def distinguishable(self) -> bool:
        """True if both intervals exclude zero."""
        return (self.low > 0 or self.high < 0) and self._is_sure

    @property
    def _is_sure(self) -> bool:
        return self.sure_low > 0 or self.sure_high < 0

    @property
    def interval(self) -> str:
        """The corrected interval as text, followed by the bootstrap interval if only that contains zero."""
        text = f"95 % confidence interval {self.sure_low:+.4f} to {self.sure_high:+.4f}"
        if self._is_sure and not self.distinguishable:
            text += f"; by the bootstrap {self.low:+.4f} to {self.high:+.4f}"
        return text


def compare(first: Sequence[float], second: Sequence[float], mode: str, among: int = 1) -> PairedComparison:
    """Returns the paired comparison of two candidates over seeds.

    The first interval is the percentile bootstrap with 10,000 resamples, deterministic. With few seeds it is too
    narrow: it excludes zero whenever all pairs agree. The second interval is therefore that of Student's t at 5 %,
    Bonferroni-corrected for the number of candidates, because the first candidate was selected on the same seeds that
    the test uses. If all differences are equal, there is no variance, and the sign test replaces both intervals. The
    intervals cover the variation over seeds, not over validation images.

    Args:
        first: Values of the first candidate, by seed.
        second: Values of the second candidate, for the same seeds.
        mode: `min` or `max`: the direction in which the metric improves.
        among: Number of candidates from which the first was selected.

    References:
        Efron 1979, Bootstrap methods: another look at the jackknife.
    """
    from scipy import stats  # imported here, because it is slow and rarely used

    apart = np.subtract(first, second)
    wins = int((apart > 0).sum() if mode == "max" else (apart < 0).sum())
    mean = float(apart.mean())
    if np.allclose(apart, mean, rtol=1e-9, atol=1e-12):  # no variance: possible for the accuracy on few images
        significant = 2.0 ** (1 - len(apart)) <= LEVEL / among  # two-sided sign test
        sure_low, sure_high = (mean, mean) if significant else (min(mean, 0.0), max(mean, 0.0))
        return PairedComparison(wins, len(apart), mean, mean, mean, sure_low, sure_high)
    interval = stats.bootstrap((apart,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0).confidence_interval
    half = half_interval(apart.tolist(), LEVEL / among)
    return PairedComparison(wins, len(apart), mean, float(interval.low), float(interval.high), mean - half, mean + half)


def half_interval(values: Sequence[float], level: float = LEVEL) -> float:
    """Returns half the width of the confidence interval of the mean, by Student's t.

    Args:
        values: At least two values.
        level: 1 minus the confidence, such as 0.05.

    Returns:
        The half-width; 0 if all values are equal.
    """
    from scipy import stats  # imported here, because it is slow and rarely used

    return _critical_t(len(values), level) * float(stats.sem(values)) if np.ptp(values) else 0.0


def _critical_t(count: int, level: float) -> float:
    """Returns the two-sided critical value of Student's t for the mean of `count` values."""
    from scipy import stats  # imported here, because it is slow and rarely used

    return float(stats.t.ppf(1 - level / 2, count - 1))


def power(effect: float, pairs: int, among: int = 1) -> float:
    """Returns the probability that `compare` finds a true difference with the correct sign (noncentral t distribution).

    Args:
        effect: True mean difference in units of the standard deviation of the paired differences.
        pairs: Number of pairs, at least 2.
        among: Number of candidates from which the first was selected (Bonferroni correction).

    References:
        Cohen 1988, Statistical power analysis for the behavioral sciences, chapter 2.
    """
    from scipy import stats  # imported here, because it is slow and rarely used

    return float(stats.nct.sf(_critical_t(pairs, LEVEL / among), pairs - 1, abs(effect) * pairs**0.5))


def pairs_for_power(apart: Sequence[float], among: int, most: int) -> int | None:
    """Returns the number of pairs at which `compare` has a power of 80 % for a difference as large as the observed one.

    Args:
        apart: Observed differences, one per pair.
        among: Number of candidates from which the first was selected (Bonferroni correction).
        most: Largest number of pairs to consider.

    Returns:
        A number larger than that of the observed pairs; None if `most` pairs do not suffice, if there are fewer than
        two pairs, or if the observed differences have zero variance or zero mean.
    """
    if len(apart) < 2 or not stdev(apart) or not fmean(apart):
        return None
    effect = fmean(apart) / stdev(apart)
    return next((n for n in range(len(apart) + 1, most + 1) if power(effect, n, among) >= POWER), None)
