"""Group-sequential paired test that decides after each pair whether one of two settings is better.

Null hypothesis: the two values of each pair are exchangeable. Swapping them does not change the joint distribution, so
each difference is symmetric about 0. Given the absolute differences, all sign patterns are then equally likely.

At each look, the test adds the sign patterns with the largest sums to the set of patterns that lead to a decision. It
skips patterns that already led to a decision at an earlier look, and adds at most the share that the spending function
allows. The probability of a false decision over all looks together is therefore at most the level, for any distribution
of the differences. Stopping earlier for another reason does not increase this probability.

The result is a function of the differences and their order, so a resumed comparison reaches the same decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING

from ensdistill.runtime.lazy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL = 0.05  # probability of a false decision in one comparison, over all looks together
MOST_PAIRS = 20  # maximum number of pairs, after which the whole level has been spent
EXACT = 12  # number of pairs whose sign patterns are enumerated completely; the signs of later pairs are random
EXPONENT = 1 / 3  # exponent of the spending function, chosen by simulation: see tests/benchmarks/sequential_power.py
EARLY = 1 / 20  # exponent for expensive pairs: nearly all of the level is spent at the first possible look
FEWEST_TO_STOP = 3  # minimum number of pairs before a comparison may end without a decision
SLACK = 1e-9  # sums that differ by less than this share of the sum of absolute differences are treated as equal
HALVINGS = 40  # number of bisection steps for each end of an interval


def spent(level: float, pairs: int, exponent: float = EXPONENT) -> float:
    """Returns the part of the level that may be spent after `pairs` pairs, `level * (pairs / 20) ** exponent`.

    Args:
        level: Probability of a false decision over all looks.
        pairs: Number of pairs so far, at most 20.
        exponent: Exponent of the spending function; a smaller exponent spends more at the first looks.

    References:
        Lan and DeMets 1983, Discrete sequential boundaries for clinical trials. The power function is from Kim and
        DeMets 1987.
    """
    return float(level * (pairs / MOST_PAIRS) ** exponent)


def fewest_pairs(level: float, exponent: float = EXPONENT) -> int:
    """Returns the smallest number of pairs that allows a decision.

    A decision after n pairs is possible if the probability 2^-n of a single sign pattern is at most `spent`.
    """
    return next((n for n in range(1, MOST_PAIRS + 1) if 2.0**-n <= spent(level, n, exponent)), MOST_PAIRS + 1)


@cache
def _signs() -> NDArray[np.float64]:
    """Returns sign patterns, shape (4096, 20); the first row is the observed pattern.

    The first 12 columns contain each pattern once; the other columns are drawn at random with a fixed seed.
    """
    bits = np.arange(2**EXACT)[:, None] >> np.arange(EXACT) & 1
    drawn = np.random.default_rng(0).integers(0, 2, (2**EXACT, MOST_PAIRS - EXACT))
    drawn[0] = 0
    return 1.0 - 2.0 * np.hstack([bits, drawn])


def crossing(differences: Sequence[float], level: float, exponent: float = EXPONENT) -> int | None:
    """Returns the number of pairs after which the test decides that the differences are positive.

    Args:
        differences: At most 20 differences, one per pair, in order; positive if the first setting is better.
        level: Maximum probability of this decision if the null hypothesis is true.
        exponent: Exponent of the spending function.

    Returns:
        The number of pairs; None if there is no decision.

    References:
        Fisher 1935, The design of experiments, section 21, for the test with a single look.
    """
    if len(differences) > MOST_PAIRS:
        raise ValueError(f"differences: must contain at most {MOST_PAIRS} values, got {len(differences)}")
    signs, slack = _signs(), SLACK * float(np.abs(differences).sum())
    sums, stopped = np.zeros(len(signs)), np.zeros(len(signs), dtype=bool)
    for pairs, difference in enumerate(differences, 1):
        sums += signs[:, pairs - 1] * difference
        left = int(spent(level, pairs, exponent) * len(signs) + SLACK) - int(stopped.sum())
        if left <= 0:
            continue
        running = np.where(stopped, -np.inf, sums)
        largest_refused = np.partition(running, -left - 1)[-left - 1]
        crosses = running > largest_refused + slack
        if crosses[0]:
            return pairs
        stopped |= crosses
    return None


@dataclass(frozen=True)
class SequentialTest:
    """Result of the test in both directions.

    Attributes:
        differences: One difference per pair, in order; positive if the first setting is better.
        better_level: Significance level for deciding that the first setting is better.
        worse_level: Significance level for deciding that the first setting is worse.
        exponent: Exponent of the spending function.
    """

    differences: tuple[float, ...]
    better_level: float = LEVEL / 2
    worse_level: float = LEVEL / 2
    exponent: float = EXPONENT

    @cached_property
    def outcome(self) -> str:
        """`better`, `worse` or `undecided`: the decision that is reached first."""
        up = crossing(self.differences, self.better_level, self.exponent) or MOST_PAIRS + 1
        down = crossing([-d for d in self.differences], self.worse_level, self.exponent) or MOST_PAIRS + 1
        return "undecided" if up == down else "better" if up < down else "worse"

    @cached_property
    def hopeless(self) -> bool:
        """True if no decision is expected within 20 pairs.

        Two cases are checked: all further differences lie one standard deviation above the mean so far, or all lie one
        standard deviation below it. No decision is expected if the test remains undecided in both cases.
        """
        if self.outcome != "undecided" or len(self.differences) < FEWEST_TO_STOP:
            return False
        mean, spread = float(np.mean(self.differences)), float(np.std(self.differences, ddof=1))
        more = MOST_PAIRS - len(self.differences)
        ends = ((*self.differences, *[mean + step] * more) for step in (spread, -spread))
        return all(replace(self, differences=end).outcome == "undecided" for end in ends)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Confidence interval of the mean difference: all values that the test does not reject.

        The interval is valid although the number of pairs depends on the differences. It excludes 0 if and only if
        there is a decision. The differences are assumed to be symmetric about their mean. If a decision in one
        direction would require more pairs, the corresponding end is infinite.
        """
        return self._low(self.better_level, 1.0), -self._low(self.worse_level, -1.0)

    def _low(self, level: float, sign: float) -> float:
        """Returns the lower end of the interval of `sign` times the mean difference, found by bisection."""
        own = [sign * d for d in self.differences]
        if len(own) < fewest_pairs(level, self.exponent):
            return -float("inf")
        decided = self.outcome == ("better" if sign > 0 else "worse")
        reach = max(own) - min(own) + abs(min(own))
        low, high = (0.0, max(own)) if decided else (min(min(own), 0.0) - reach, min(max(own), 0.0))
        for _ in range(HALVINGS if high > low else 0):
            middle = (low + high) / 2
            rejected = crossing([d - middle for d in own], level, self.exponent) is not None
            low, high = (middle, high) if rejected else (low, middle)
        return low
