"""Metrics of a network, keyed by name."""

from collections.abc import Sequence
from statistics import fmean

Metrics = dict[str, float]


def mean_metrics(rows: Sequence[Metrics]) -> Metrics:
    """Returns the mean of each metric over several networks."""
    return {name: fmean(row[name] for row in rows) for name in rows[0]}
