"""Formatting of numbers for messages and tables."""

from collections.abc import Sequence
from statistics import fmean, stdev


def file_size(size: int) -> str:
    """Returns a file size in bytes as text: `1,234.5 kB`."""
    return f"{size / 1000:,.1f} kB"


def memory_size(size: int) -> str:
    """Returns a memory size in bytes as text: `12 KiB`, `512 MiB` or `1.5 GiB`."""
    if size < 2**20:
        return f"{size / 2**10:.0f} KiB"
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def in_millions(count: float) -> str:
    """Returns a count in millions as text: 81,200,000 becomes `81.2`."""
    return f"{count / 1e6:,.3g}"


def percent(share: float, digits: int = 0) -> str:
    """Returns a share formatted as a percentage.

    Args:
        share: The share; 1 corresponds to 100 %.
        digits: Number of decimal places; a share of 0.034 becomes `3 %` with 0 digits and `3.4 %` with 1 digit.
    """
    return f"{100 * share:.{digits}f} %"


def mean_and_spread(values: Sequence[float], digits: int = 4) -> str:
    """Returns the mean and the standard deviation as text: `0.1039 +- 0.0038`.

    Args:
        values: At least one value; if there is only one, the standard deviation is omitted.
        digits: Number of decimal places.
    """
    return f"{fmean(values):.{digits}f}" + (f" +- {stdev(values):.{digits}f}" if len(values) > 1 else "")
