"""Numbers as people read them."""

from collections.abc import Sequence
from statistics import fmean, stdev


def file_size(size: int) -> str:
    """Returns a number of bytes on a disk as `1,234.5 kB`."""
    return f"{size / 1000:,.1f} kB"


def memory_size(size: int) -> str:
    """Returns a number of bytes of memory as `512 MiB` or `1.5 GiB`."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def in_millions(count: float) -> str:
    """Returns a number of operations in millions, as `81.2`."""
    return f"{count / 1e6:,.3g}"


def percent(share: float, digits: int = 0) -> str:
    """`0.034` -> `3.4 %`."""
    return f"{100 * share:.{digits}f} %"


def mean_and_spread(values: Sequence[float], digits: int = 4) -> str:
    """`0.1039 +- 0.0038`: mean and standard deviation; one value alone has none."""
    return f"{fmean(values):.{digits}f}" + (f" +- {stdev(values):.{digits}f}" if len(values) > 1 else "")
