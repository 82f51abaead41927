"""Confidence interval of a mean over seeds."""

from __future__ import annotations

from collections.abc import Sequence

from ensdistill.runtime.lazy import np

LEVEL = 0.05


def half_interval(values: Sequence[float], level: float = LEVEL) -> float:
    """Returns the half-width of the confidence interval of the mean, from Student's t distribution.

    Args:
        values: At least two values.
        level: 1 minus the confidence level, such as 0.05.

    Returns:
        The half-width; 0 if all values are equal.
    """
    from scipy import stats  # imported here, because it is slow and rarely used

    critical = float(stats.t.ppf(1 - level / 2, len(values) - 1))
    return critical * float(stats.sem(values)) if np.ptp(values) else 0.0
