"""Replication against selection bias: which trials are repeated, which candidate wins, and what the verdict states."""

from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ensdistill_tune.analysis.replication import (
    Candidate,
    candidates,
    plan_replicates,
    verdict,
    why_none_wins,
    winner_of,
)
from ensdistill_tune.analysis.statistics import compare
from ensdistill_tune.records.trial_record import METRICS, TrialRecord
from ensdistill_tune.study.study_config import StudyConfig

METRIC = "val/nll"


def trial(number: int, value: float, baseline: str | None = None, state: str = "finished", **more: int) -> TrialRecord:
    last = {"epoch": 2.0, "epochs": 2.0, **dict.fromkeys(METRICS, value)}
    return TrialRecord(number, baseline, {} if baseline else {"x": number}, f"hash{number}", state, [last], **more)


SEARCHED = [
    trial(1, 0.5, "kd"),
    trial(2, 0.6, "latentbe"),
    trial(3, 0.3),
    trial(4, 0.2, state="pruned"),
    trial(5, 0.4),
    trial(6, 0.1, state="failed"),
    trial(7, 0.45),
]


def study(best: int, seeds: int = 5, **more: Any) -> StudyConfig:
    search = {"loss.temperature": {"uniform": [1, 2]}}
    return StudyConfig.model_validate({"search": search, "confirmation": {"top_k": best, "seeds": seeds}, **more})


def replicates(values: dict[int, list[float]]) -> list[TrialRecord]:
    """Returns replicates by trial number; seed s has the s-th value."""
    made = [(number, seed, value) for number, some in values.items() for seed, value in enumerate(some, start=1)]
    by_number = {t.number: t for t in SEARCHED}
    return [
        trial(100 + n, value, by_number[number].baseline, replicate_of=number, seed=seed)
        for n, (number, seed, value) in enumerate(made)
    ]


def test_the_best_finished_trials_and_all_baselines_are_repeated_with_the_same_fresh_seeds() -> None:
    todo = plan_replicates(SEARCHED, study(best=2, seeds=3, config={"seed": 7}))
    assert [(of.number, seed) for of, seed in todo] == [(n, seed) for seed in (8, 9, 10) for n in (3, 5, 1, 2)]


def test_fewer_completed_trials_than_requested_cause_no_error() -> None:
    assert {of.number for of, _ in plan_replicates(SEARCHED, study(best=50))} == {1, 2, 3, 5, 7}


def test_equal_settings_are_repeated_only_once_and_under_the_baseline_if_it_has_them() -> None:
    alike = [trial(1, 0.5, "kd"), trial(2, 0.3), trial(3, 0.3), trial(4, 0.5), trial(5, 0.6)]
    alike[2].config_hash, alike[3].config_hash = alike[1].config_hash, alike[0].config_hash
    assert {of.number for of, _ in plan_replicates(alike, study(best=3))} == {1, 2, 5}


def test_with_fewer_seeds_than_before_all_candidates_are_compared_on_those_seeds() -> None:
    again = replicates({3: [0.1, 0.2, 0.9], 5: [0.3, 0.3]})
    order = candidates(SEARCHED, again, study(best=9, seeds=2))
    assert [(c.trial.number, [r.seed for r in c.replicates]) for c in order] == [(3, [1, 2]), (5, [1, 2])]
    assert not candidates(SEARCHED, again, study(best=9, seeds=4))


def test_larger_values_are_better_if_the_objective_is_maximized() -> None:
    assert {of.number for of, _ in plan_replicates(SEARCHED[2:], study(best=1, objective="val/accuracy"))} == {7}


def test_the_winner_is_the_candidate_with_the_best_mean_and_not_the_best_single_seed() -> None:
    again = replicates({3: [0.1, 0.9, 0.8], 5: [0.4, 0.4, 0.4], 1: [0.5, 0.5, 0.5]})
    order = candidates(SEARCHED, again, study(best=9, seeds=3))
    assert [c.trial.number for c in order] == [5, 1, 3]
    assert candidates(SEARCHED, again, study(best=9, seeds=3, objective="val/accuracy"))[0].trial.number == 3


def test_a_candidate_with_a_failed_replicate_is_excluded() -> None:
    again = replicates({3: [0.1, 0.1], 5: [0.4, 0.4]})
    again[1].state = "failed"
    assert [c.trial.number for c in candidates(SEARCHED, again, study(best=9, seeds=2))] == [5]


def test_replicates_are_paired_by_seed_whatever_their_order() -> None:
    again = replicates({3: [0.1, 0.2, 0.3], 5: [0.2, 0.3, 0.4]})[::-1]
    first, second = candidates(SEARCHED, again, study(best=9, seeds=3))
    assert [r.seed for r in first.replicates] == [r.seed for r in second.replicates] == [1, 2, 3]
    assert compare(first.values(METRIC), second.values(METRIC), "min").difference == pytest.approx(-0.1)


def test_the_bootstrap_interval_agrees_with_all_resamples_of_the_pairs() -> None:
    first, second = [0.1, 0.3, 0.2, 0.5], [0.2, 0.6, 0.2, 0.4]
    apart = np.subtract(first, second)
    every = np.array(np.meshgrid(*[range(4)] * 4)).reshape(4, -1)  # all 256 of them
    low, high = np.quantile(apart[every].mean(0), [0.025, 0.975])
    found = compare(first, second, "min")
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.011)
    assert (found.wins, found.pairs) == (2, 4)
    assert compare(first, second, "max").wins == 1


def test_the_same_pairs_give_the_same_interval() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 6)).tolist()
    assert compare(first, second, "min") == compare(first, second, "min")


def test_equal_paired_differences_cause_no_error() -> None:
    assert compare([1.0, 1.0], [1.0, 1.0], "min").distinguishable is False
    assert compare([0.5] * 6, [1.0] * 6, "min").distinguishable is True


def test_equal_paired_differences_of_few_seeds_are_not_significant() -> None:
    assert compare([0.90, 0.91], [0.89, 0.90], "max", 3).distinguishable is False
    assert [n for n in range(2, 10) if compare([1.0] * n, [0.0] * n, "max").distinguishable] == [6, 7, 8, 9]


@pytest.mark.parametrize(
    ("mine", "theirs", "says"),
    [
        (
            [0.10, 0.11, 0.12],
            [0.20, 0.22, 0.21],
            "003 is better than kd as published: nll -0.1000 (95 % confidence interval -0.1248 to -0.0752); 3 of 3 ",
        ),
        ([0.10, 0.30, 0.10], [0.20, 0.16, 0.20], "003 is not distinguishable from kd as published: nll -0.0200 (95 %"),
        ([0.30, 0.30, 0.31], [0.20, 0.20, 0.20], "no searched settings beat kd as published on average over 3 seeds"),
    ],
)
def test_the_verdict_states_which_candidate_is_better(mine: list[float], theirs: list[float], says: str) -> None:
    own = study(best=9, seeds=3)
    order = candidates(SEARCHED, replicates({3: mine, 1: theirs}), own)
    assert verdict(order, own).sentence.startswith(says)


def test_the_verdict_without_a_baseline_makes_no_comparison() -> None:
    own = study(best=9, seeds=2)
    order = candidates(SEARCHED, replicates({3: [0.1, 0.2], 5: [0.3, 0.3]}), own)
    assert verdict(order, own).sentence == "003 is the best of 2 candidates; no baseline was confirmed"


def test_the_verdict_without_searched_settings_makes_no_comparison() -> None:
    own = study(best=9, seeds=2)
    order = candidates(SEARCHED, replicates({1: [0.1, 0.2], 2: [0.3, 0.3]}), own)
    sentence = "baseline kd is the best of 2 candidates; no searched settings were confirmed"
    assert verdict(order, own).sentence == sentence


@pytest.mark.parametrize("seeds", [2, 5])
def test_the_best_of_three_equal_candidates_is_rarely_called_better(seeds: int) -> None:
    rng, called = np.random.default_rng(1), 0
    for _ in range(200):
        baseline, *searched = rng.normal(size=(4, seeds)).tolist()
        found = compare(min(searched, key=fmean), baseline, "min", among=3)
        called += found.distinguishable and found.difference < 0
    assert called / 200 < 0.05  # the intended rate is 2.5 %; the bootstrap alone has 14 % to 42 %


def test_a_clear_difference_is_significant() -> None:
    first, second = [0.10, 0.11, 0.12, 0.10, 0.11], [0.20, 0.22, 0.21, 0.21, 0.20]
    assert compare(first, second, "min", among=3).distinguishable


def test_the_corrected_interval_is_a_student_t_interval() -> None:
    apart = np.array([-0.1, -0.2, -0.3, -0.15])
    low, high = stats.t.interval(1 - 0.05 / 3, 3, apart.mean(), stats.sem(apart))
    found = compare(apart, np.zeros(4), "min", among=3)
    assert (found.sure_low, found.sure_high) == pytest.approx((low, high))


def test_the_best_replicate_is_exported() -> None:
    candidate = Candidate(SEARCHED[2], replicates({3: [0.3, 0.1, 0.2]}))
    assert candidate.best(study(best=1)).seed == 2


# --- constraints ------------------------------------------------------------------------------------------------------

AT_MOST = {"constraints": {"val/ece": {"at_most": 0.25}}}  # only trials 4 and 6 above satisfy it, and both are excluded


def with_ece(of: TrialRecord, ece: float) -> TrialRecord:
    return replace(of, epochs=[of.last | {"val/ece": ece}])


def test_trials_that_violate_a_constraint_are_repeated_only_if_all_trials_do() -> None:
    own = study(best=2, seeds=2, **AT_MOST)
    feasible = [*SEARCHED[:6], with_ece(SEARCHED[6], 0.2)]  # 7 is the worst by NLL
    assert {of.number for of, _ in plan_replicates(feasible, own)} == {1, 2, 7}
    assert {of.number for of, _ in plan_replicates(SEARCHED, own)} == {1, 2, 3, 5}, "the nearest two"


def test_candidates_are_ranked_by_their_mean_over_seeds() -> None:
    own = study(best=9, seeds=2, **AT_MOST)
    some = replicates({3: [0.1, 0.2], 5: [0.3, 0.4]})
    lucky = [with_ece(r, ece) for r, ece in zip(some, (0.2, 0.4, 0.1, 0.3), strict=True)]  # means 0.3 and 0.2
    order = candidates(SEARCHED, lucky, own)
    assert [c.trial.number for c in order] == [5, 3]
    assert winner_of(order, own) is order[0]
    assert order[0].best(own).seed == 1, "the repeat of seed 2 breaks the constraint"
    assert order[1].broken(own) == ["val/ece 0.3, at most 0.25"]


def test_without_a_feasible_candidate_none_wins_and_the_closest_is_named() -> None:
    own = study(best=9, seeds=2, **AT_MOST)
    order = candidates(SEARCHED, replicates({3: [0.3, 0.3], 1: [0.5, 0.5]}), own)
    assert winner_of(order, own) is None
    sentence = "none of 2 candidates meets the constraints on average over 2 seeds, so none wins; the closest is 003 "
    assert verdict(order, own).sentence == f"{sentence}(val/ece 0.3, at most 0.25)"
    assert why_none_wins(SEARCHED, order, own) == verdict(order, own).sentence
    assert "the closest is 003" in str(why_none_wins(own.rank(SEARCHED), [], own))
    assert why_none_wins(SEARCHED, [], study(best=9)) is None


def test_the_verdict_states_that_a_better_baseline_violates_a_constraint() -> None:
    own = study(best=9, seeds=3, **AT_MOST)
    mine = [with_ece(r, 0.1) for r in replicates({3: [0.30, 0.31, 0.32]})]
    order = candidates(SEARCHED, [*mine, *replicates({1: [0.26, 0.28, 0.27]})], own)
    sentence = verdict(order, own).sentence
    assert sentence.startswith("003 is worse than kd as published: nll +0.0400 (95 % confidence interval ")
    assert sentence.endswith("; kd breaks a constraint (val/ece 0.27, at most 0.25)")
