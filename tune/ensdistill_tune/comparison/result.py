"""Result of a comparison, as data and as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from ensdistill_tune.analysis.sequential_test import LEVEL, MOST_PAIRS, SequentialTest
from ensdistill_tune.study.objectives import spoken

Outcome = Literal["better", "undecided", "worse"]
EXIT_CODES: Mapping[Outcome, int] = {"better": 0, "undecided": 1, "worse": 3}
WORDS: Mapping[str, str] = {
    "better": "is better than",
    "worse": "is worse than",
    "undecided": "is not distinguishable from",
}


@dataclass(frozen=True)
class PairResult:
    """Comparison of the first settings with one of the others, paired by seed.

    Attributes:
        first: Name of the first settings.
        other: Name of the other settings.
        metric: The metric.
        differences: Differences in the metric (first minus other), one for each common seed.
        test: Sequential test of the differences. If the metric is minimized, their signs are changed, so that a
            positive difference always means that the first settings are better.
    """

    first: str
    other: str
    metric: str
    differences: tuple[float, ...]
    test: SequentialTest

    @property
    def outcome(self) -> str:
        """Outcome for the first settings: `better`, `worse` or `undecided`."""
        return self.test.outcome

    @property
    def ended(self) -> bool:
        """True if further seeds would not change the outcome, or are not expected to change it."""
        return self.outcome != "undecided" or self.test.hopeless

    @property
    def wins(self) -> int:
        """Number of pairs in which the first settings are better."""
        return sum(d > 0 for d in self.test.differences)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the mean difference (first minus other), valid even if the test stopped early."""
        low, high = self.test.interval
        minimized = self.differences != self.test.differences
        return (-high, -low) if minimized else (low, high)

    def __str__(self) -> str:
        low, high = self.interval
        interval = f"95 % interval {low:+.4f} to {high:+.4f}" if math.isfinite(low + high) else "too few seeds"
        name = spoken(self.metric)
        return (
            f"{self.first} {WORDS[self.outcome]} {self.other}: {name} {fmean(self.differences):+.4f} "
            f"({interval}), better in {self.wins} of {len(self.differences)} seeds{self._outlook}"
        )

    @property
    def _outlook(self) -> str:
        """Clause that states whether more seeds may lead to a decision; empty after a decision or after all seeds."""
        if self.outcome != "undecided" or len(self.differences) == MOST_PAIRS:
            return ""
        return f"; more seeds {'are not expected to' if self.test.hopeless else 'may'} lead to a decision"

    def as_row(self) -> dict[str, Any]:
        """Returns plain values for JSON; an infinite bound of the interval is None."""
        low, high = (end if math.isfinite(end) else None for end in self.interval)
        return {
            "other": self.other,
            "outcome": self.outcome,
            "pairs": len(self.differences),
            "wins": self.wins,
            "mean_difference": fmean(self.differences),
            "low": low,
            "high": high,
            "differences": list(self.differences),
        }


@dataclass(frozen=True)
class ComparisonResult:
    """Result of a comparison.

    Attributes:
        metric: The metric that was compared, on validation images.
        mode: Direction in which the metric improves, `min` or `max`.
        first_seed: The first seed of the students.
        values: Metric values, one per seed, keyed by the name of the settings; the first settings come first.
        config_hashes: Hashes of the settings with seed 0, keyed by the name of the settings.
        folder: Folder of the result.
        training_seconds: Total training time of all students in seconds.
    """

    metric: str
    mode: str
    first_seed: int
    values: Mapping[str, Sequence[float]]
    config_hashes: Mapping[str, str]
    folder: Path
    training_seconds: float

    @cached_property
    def pairs(self) -> tuple[PairResult, ...]:
        """Comparisons of the first settings with each of the others."""
        first, *others = self.values
        return tuple(pair_of(self.metric, self.mode, first, other, self.values) for other in others)

    @property
    def outcome(self) -> Outcome:
        """Outcome for the first settings: `better` than all others, `worse` than one or more, or `undecided`."""
        found = {pair.outcome for pair in self.pairs}
        return "worse" if "worse" in found else "better" if found == {"better"} else "undecided"

    @property
    def exit_code(self) -> int:
        """0 if the first settings are better than all others, 3 if they are worse than one or more, otherwise 1."""
        return EXIT_CODES[self.outcome]

    def __str__(self) -> str:
        return "\n".join(map(str, self.pairs))

    def as_row(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        settings = [
            {"name": name, "config_hash": self.config_hashes[name], "values": list(values)}
            for name, values in self.values.items()
        ]
        return {
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "metric": self.metric,
            "mode": self.mode,
            "first_seed": self.first_seed,
            "settings": settings,
            "pairs": [pair.as_row() for pair in self.pairs],
            "training_seconds": round(self.training_seconds, 1),
            "folder": str(self.folder),
        }


def pair_of(metric: str, mode: str, first: str, other: str, values: Mapping[str, Sequence[float]]) -> PairResult:
    """Returns the comparison of two settings.

    Each direction is tested at half of the significance level. The overall outcome is "better" only if every pair is
    "better", so this direction requires no correction for several pairs. A single pair suffices for an overall "worse",
    so the level for this direction is also divided by the number of pairs (Bonferroni).

    Args:
        metric: The metric.
        mode: Direction in which the metric improves, `min` or `max`.
        first: Name of the first settings.
        other: Name of the other settings.
        values: Metric values, one per seed, keyed by the name of the settings; the other settings may have fewer seeds
            than the first.
    """
    differences = tuple(a - b for a, b in zip(values[first], values[other], strict=False))
    gains = differences if mode == "max" else tuple(-d for d in differences)
    test = SequentialTest(gains, LEVEL / 2, LEVEL / 2 / (len(values) - 1))
    return PairResult(first, other, metric, differences, test)
