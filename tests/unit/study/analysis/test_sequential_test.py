"""The sequential test agrees with enumeration, hand-computed numbers and small simulations."""

import itertools

import numpy as np
import pytest

from ensdistill_tune.analysis.sequential_test import (
    MOST_PAIRS,
    SequentialTest,
    crossing,
    fewest_pairs,
    spent,
)

APART = (0.3, 1.1, 0.7, 0.2, 1.9, 0.4, 0.8, 0.6)  # absolute differences


def by_enumeration(differences: tuple[float, ...], level: float) -> int | None:
    """Returns the decision by a direct implementation of the rule: sets of sign patterns, pair after pair."""
    stopped: set[tuple[int, ...]] = set()
    for n in range(1, len(differences) + 1):
        patterns = list(itertools.product((1, -1), repeat=n))
        before = {p for p in patterns if any(p[:k] in stopped for k in range(1, n))}
        sums = {p: sum(s * abs(d) for s, d in zip(p, differences, strict=False)) for p in patterns if p not in before}
        left = int(level * (n / 20) ** (1 / 3) * 2**n) - len(before)
        refused = sorted(sums.values(), reverse=True)[max(left, 0)]
        crosses = {p for p, total in sums.items() if total > refused + 1e-9} if left > 0 else set()
        if tuple(1 if d > 0 else -1 for d in differences[:n]) in crosses:
            return n
        stopped |= crosses
    return None


def test_a_decision_agrees_with_the_enumeration_of_all_sign_patterns() -> None:
    random = np.random.default_rng(1)
    for signs in random.choice([-1, 1], (25, 8), p=[0.2, 0.8]):
        own = tuple(float(s * d) for s, d in zip(signs, APART, strict=True))
        assert crossing(own, 0.05) == by_enumeration(own, 0.05)


@pytest.mark.parametrize("level", [0.05, 0.2])
def test_the_share_of_sign_patterns_that_give_a_decision_is_at_most_the_level_spent_so_far(level: float) -> None:
    every = list(itertools.product((1, -1), repeat=len(APART)))
    decided = [crossing([s * d for s, d in zip(signs, APART, strict=True)], level) for signs in every]
    for n in range(1, len(APART) + 1):
        share = sum(first is not None and first <= n for first in decided) / len(every)
        assert share <= spent(level, n)
    assert share > 0.5 * spent(level, len(APART))


@pytest.mark.parametrize(("level", "pairs"), [(0.05, 5), (0.025, 6), (0.05 / 3, 7)])
def test_pairs_with_equal_signs_give_a_decision_once_their_probability_is_at_most_the_level(
    level: float, pairs: int
) -> None:
    # By hand: 2^-5 = .0313 <= .05 (5/20)^(1/3) = .0315; 2^-6 = .0156 <= .0167; 2^-7 = .0078 <= .0117.
    assert fewest_pairs(level) == pairs
    assert crossing([0.1] * 8, level) == pairs
    assert crossing(list(APART), level) == pairs


def test_more_pairs_do_not_change_an_earlier_decision() -> None:
    own = [*APART, *[-5.0] * 12]
    assert crossing(own, 0.025) == crossing(own[:7], 0.025) == 6


def test_a_number_of_pairs_above_the_maximum_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 20 values, got 21"):
        crossing([1.0] * 21, 0.05)


def test_swapping_the_settings_swaps_the_outcome_and_the_interval() -> None:
    own, swapped = SequentialTest(APART), SequentialTest(tuple(-d for d in APART))
    assert (own.outcome, swapped.outcome) == ("better", "worse")
    assert own.interval == pytest.approx([-end for end in reversed(swapped.interval)])


@pytest.mark.parametrize("shift", [-0.6, -0.2, 0.0, 0.3, 1.5])
def test_the_interval_excludes_zero_if_and_only_if_there_is_a_decision(shift: float) -> None:
    own = SequentialTest(tuple(np.random.default_rng(3).normal(shift, 1, 16)))
    low, high = own.interval
    assert (low > 0 or high < 0) == (own.outcome != "undecided")
    assert low < np.mean(own.differences) < high


def test_the_interval_is_infinite_with_too_few_pairs() -> None:
    assert SequentialTest(APART[:5]).interval == (-float("inf"), float("inf"))


def test_equal_values_give_no_decision_and_end_the_comparison() -> None:
    same = SequentialTest((0.0,) * 6)
    assert (same.outcome, same.hopeless) == ("undecided", True)


def test_a_comparison_without_a_decision_but_with_a_clear_trend_is_not_hopeless() -> None:
    assert not SequentialTest(APART[:4]).hopeless


def test_exchangeable_skewed_pairs_give_a_false_decision_in_at_most_5_percent_of_comparisons() -> None:
    pairs = np.exp(np.random.default_rng(4).standard_normal((200, 2, MOST_PAIRS)))
    outcomes = [SequentialTest(tuple(a - b)).outcome for a, b in pairs]
    assert sum(outcome != "undecided" for outcome in outcomes) <= 0.05 * 200 + 3 * (0.05 * 0.95 * 200) ** 0.5


def test_a_difference_of_two_standard_deviations_is_detected_in_80_percent_of_comparisons() -> None:
    drawn = np.random.default_rng(5).normal(2, 1, (50, MOST_PAIRS))
    assert sum(SequentialTest(tuple(own)).outcome == "better" for own in drawn) >= 40
