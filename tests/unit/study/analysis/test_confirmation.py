"""The confirmation: the candidates that are repeated, their numbers of seeds, the winner, and the verdict."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ensdistill_tune.analysis.confirmation import confirmation_of, is_clearly_behind
from ensdistill_tune.analysis.replication import Candidate, choose_candidates, winner_of
from ensdistill_tune.analysis.verdict import PairedComparison, verdict, why_none_wins
from ensdistill_tune.records.trial_record import METRICS, TrialRecord
from ensdistill_tune.study.study_config import StudyConfig
from tests.benchmarks.sequential_power import Race, lognormal, normal

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


def study(best: int, seeds: int = 6, **more: Any) -> StudyConfig:
    search = {"loss.temperature": {"uniform": [1, 2]}}
    return StudyConfig.model_validate({"search": search, "confirmation": {"top_k": best, "seeds": seeds}, **more})


def replicates(values: dict[int, list[float]]) -> list[TrialRecord]:
    """Returns replicates; the one with seed s has the s-th value of its trial."""
    made = [(number, seed, value) for number, some in values.items() for seed, value in enumerate(some, start=1)]
    by_number = {t.number: t for t in SEARCHED}
    return [
        trial(100 + n, value, by_number[number].baseline, replicate_of=number, seed=seed)
        for n, (number, seed, value) in enumerate(made)
    ]


def candidates(done: list[TrialRecord], own: StudyConfig, trials: list[TrialRecord]) -> list[Candidate]:
    return list(confirmation_of(trials, done, own).candidates)


def run(values: dict[int, list[float]], own: StudyConfig, trials: list[TrialRecord]) -> Any:
    """Runs the confirmation; `values` are keyed by trial number and ordered by seed."""
    chosen, done = {t.number for t in choose_candidates(trials, own)}, dict.fromkeys(values, 0)
    assert chosen == set(values)
    while todo := confirmation_of(trials, replicates({n: values[n][:k] for n, k in done.items()}), own).todo:
        for of, _ in todo:
            done[of.number] += 1
    return confirmation_of(trials, replicates({n: values[n][:k] for n, k in done.items()}), own)


def seeds_of(order: list[Candidate]) -> dict[int, int]:
    return {c.trial.number: len(c.replicates) for c in order}


def test_the_best_finished_trials_and_all_baselines_are_repeated_with_the_same_fresh_seeds() -> None:
    todo = confirmation_of(SEARCHED, [], study(best=2, seeds=3, config={"seed": 7})).todo
    assert [(of.number, seed) for of, seed in todo] == [(n, seed) for seed in (8, 9, 10) for n in (3, 5, 1, 2)]


def test_fewer_completed_trials_than_requested_candidates_cause_no_error() -> None:
    assert {of.number for of in choose_candidates(SEARCHED, study(best=50))} == {1, 2, 3, 5, 7}


def test_only_one_of_several_trials_with_equal_settings_is_repeated_and_baselines_are_preferred() -> None:
    alike = [trial(1, 0.5, "kd"), trial(2, 0.3), trial(3, 0.3), trial(4, 0.5), trial(5, 0.6)]
    alike[2].config_hash, alike[3].config_hash = alike[1].config_hash, alike[0].config_hash
    assert {of.number for of in choose_candidates(alike, study(best=3))} == {1, 2, 5}


# --- stages -----------------------------------------------------------------------------------------------------------

TRIALS = [SEARCHED[0], SEARCHED[1], SEARCHED[2], SEARCHED[4]]  # baselines 1 and 2, search trials 3 and 5
CLEAR = {
    1: [0.50, 0.51, 0.52, 0.50, 0.51, 0.52, 0.50],
    2: [0.60, 0.61, 0.63],  # worse than the other baseline
    3: [0.30, 0.32, 0.31, 0.30, 0.31, 0.32, 0.33],
    5: [0.40, 0.41, 0.39],  # worse than trial 3
}


def test_clearly_worse_candidates_are_dropped_after_three_seeds_and_others_continue() -> None:
    found = run(CLEAR, study(best=2), TRIALS)
    assert seeds_of(found.candidates) == {3: 6, 1: 6, 5: 3, 2: 3}, "2^-6 is the first below 5 % / 2"
    assert [c.dropped_for for c in found.candidates] == [None, None, 3, 1]
    assert [(s.seeds, s.dropped, s.outcome) for s in found.stages] == [
        (3, {5: 3, 2: 1}, "undecided"),
        (4, {}, "undecided"),
        (5, {}, "undecided"),
        (6, {}, "better"),
    ]
    assert found.planned == 18
    assert verdict(found.candidates, study(best=2)).better


def test_candidates_that_are_close_to_the_leader_are_not_dropped() -> None:
    close = {3: [0.30, 0.32, 0.31, 0.30], 5: [0.31, 0.30, 0.32, 0.31], 1: [0.50, 0.51, 0.52, 0.5], 2: [0.9, 0.9, 0.9]}
    # The means of 3 and 5 are equal after three seeds; after four, the differences are 0.01, -0.02, 0.01, 0.01.
    found = run(close, study(best=2, seeds=4), TRIALS)
    assert seeds_of(found.candidates) == {3: 4, 5: 4, 1: 4, 2: 3}


def test_seeds_not_used_by_dropped_candidates_are_given_to_other_candidates_within_the_budget() -> None:
    equal = [0.5, 0.6, 0.4, 0.7] * 5
    values = {1: equal, 2: [0.9] * 3, 3: [v + d for v, d in zip(equal, [-0.1, 0.09] * 10, strict=True)], 5: [0.9] * 3}
    found = run(values, study(best=2), TRIALS)
    assert seeds_of(found.candidates) == {3: 9, 1: 9, 5: 3, 2: 3}, "24 replicates: 12, then 12 for two candidates"
    assert (found.stages[-1].outcome, found.planned) == ("undecided", 24)
    more = run(values, study(best=2, seeds=20), TRIALS)
    assert max(seeds_of(more.candidates).values()) == 20, "the test ends there"
    assert more.stages[: len(found.stages)] == found.stages, "more budget continues the same confirmation"


def test_a_confirmation_ends_when_only_baselines_are_left() -> None:
    found = run({1: [0.1, 0.11, 0.1], 2: [0.5] * 3, 3: [0.3, 0.3, 0.3], 5: [0.4] * 3}, study(best=2), TRIALS)
    assert seeds_of(found.candidates) == {1: 3, 3: 3, 5: 3, 2: 3}
    sentence = verdict(found.candidates, study(best=2)).sentence
    assert sentence == "no searched settings beat kd as published over 3 seeds"


def test_a_stage_is_evaluated_after_all_its_replicates_have_ended_regardless_of_their_order() -> None:
    own, every = study(best=2), run(CLEAR, study(best=2), TRIALS)
    done = [r for c in every.candidates for r in c.replicates]
    for left_out in done:
        part = confirmation_of(TRIALS, [r for r in done if r is not left_out], own)
        assert [seed for _, seed in part.todo].count(left_out.seed) >= 1
        assert part.stages == every.stages[: len(part.stages)]
        assert len(part.stages) == (0 if left_out.seed <= 3 else left_out.seed - 3)
    assert confirmation_of(TRIALS, done[::-1], own) == every


def test_without_a_baseline_a_confirmation_ends_when_a_single_candidate_is_left() -> None:
    found = run({3: [0.1, 0.11, 0.1], 5: [0.4, 0.4, 0.4]}, study(best=2), TRIALS[2:])
    assert seeds_of(found.candidates) == {3: 3, 5: 3}
    assert (
        verdict(found.candidates, study(best=2)).sentence
        == "003 is the best of 2 candidates; no baseline was confirmed"
    )


def test_with_several_objectives_no_candidate_on_the_pareto_front_of_means_is_dropped() -> None:
    own = study(best=2, seeds=3, secondary_objectives=["val/ece"])
    some = replicates({3: [0.3] * 3, 5: [0.4] * 3, 1: [0.5] * 3, 2: [0.6] * 3})
    some = [with_ece(r, 0.1 if r.replicate_of in (1, 5) else 0.5) for r in some]
    assert confirmation_of(TRIALS, some, own).stages[0].dropped == {2: 1}


def test_a_candidate_is_clearly_worse_if_its_mean_is_worse_by_more_than_half_a_standard_error() -> None:
    rival = Candidate(SEARCHED[0], replicates({1: [0.0, 0.0, 0.0]}))

    def behind(*values: float) -> bool:
        return is_clearly_behind(Candidate(SEARCHED[2], replicates({3: list(values)})), rival, study(best=1))

    # The pairs (m - 1, m, m + 1) have the standard error 1 / sqrt(3) = 0.577.
    assert [m for m in (0.0, 0.28, 0.30, 1.0) if behind(m - 1, m, m + 1)] == [0.30, 1.0]
    assert not behind(-2.0, -2.0, -2.0)
    assert not behind(2.0, 2.0), "too few pairs"


def test_a_candidate_that_fails_after_its_first_stage_is_dropped_and_keeps_its_completed_seeds() -> None:
    own, seeds = study(best=2), {3: CLEAR[3], 1: CLEAR[1][:3], 5: CLEAR[5], 2: CLEAR[2]}
    lost = [trial(200, 0.9, "kd", replicate_of=1, seed=4, state="failed")] * 2
    found = confirmation_of(TRIALS, [*replicates(seeds), *lost], own)
    assert seeds_of(found.candidates) == {3: 4, 5: 3, 1: 3, 2: 3}
    assert [c.trial.number for c in found.candidates if c.failed] == [1]
    assert not found.todo, "without a baseline, nothing is left to decide"
    assert verdict(found.candidates, own).sentence.startswith("003 is not distinguishable from kd as published")


def test_a_candidate_is_excluded_if_one_of_its_replicates_fails_twice() -> None:
    own, again = study(best=2, seeds=3), replicates({3: [0.1, 0.1], 5: [0.4] * 3, 1: [0.5] * 3, 2: [0.5] * 3})
    lost = trial(200, 0.9, replicate_of=3, seed=3, state="failed")
    assert [(of.number, seed) for of, seed in confirmation_of(TRIALS, [*again, lost], own).todo] == [(3, 3)]
    assert 3 not in seeds_of(candidates([*again, lost, lost], own, TRIALS))
    stopped = trial(200, 0.9, replicate_of=3, seed=3, state="pruned")
    assert 3 not in seeds_of(candidates([*again, stopped], own, TRIALS)), "on request"


# --- winner and verdict -----------------------------------------------------------------------------------------------


def test_after_the_number_of_seeds_is_reduced_candidates_are_compared_on_the_remaining_seeds() -> None:
    again = replicates({3: [0.1, 0.2, 0.9], 5: [0.3, 0.3]})
    own = study(best=9, seeds=2)
    assert seeds_of(candidates(again, own, TRIALS[2:])) == {3: 2, 5: 2}
    assert not candidates(again, study(best=9, seeds=4), TRIALS[2:])


def test_larger_values_are_better_if_the_objective_is_maximized() -> None:
    assert {of.number for of in choose_candidates(SEARCHED[2:], study(best=1, objective="val/accuracy"))} == {7}
    values = {3: [0.9, 0.91, 0.9], 5: [0.4] * 3, 1: [0.8] * 3, 2: [0.1] * 3}
    found = run(values, study(best=2, seeds=3, objective="val/accuracy"), TRIALS)
    assert (found.stages[0].leader, found.stages[0].dropped) == (3, {5: 3, 2: 1})


def test_the_winner_has_the_best_mean_and_not_the_best_single_seed() -> None:
    again = replicates({3: [0.1, 0.9, 0.8], 5: [0.4, 0.4, 0.4], 1: [0.5, 0.5, 0.5], 2: [0.6] * 3})
    own = study(best=9, seeds=3)
    assert candidates(again, own, TRIALS)[0].trial.number == 5


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        (
            [0.10, 0.11, 0.12, 0.10, 0.11],
            [0.20, 0.22, 0.21, 0.21, 0.20],
            "003 is better than kd as published: nll -0.1000 (90 % confidence interval -0.1100 to -0.0900, corrected "
            "for 1 candidate and sequential testing); 5 of 5 seeds are better",
        ),
        (
            [0.10, 0.30, 0.10],
            [0.20, 0.16, 0.20],
            "003 is not distinguishable from kd as published: nll -0.0200 (too few seeds for an interval, corrected ",
        ),
        ([0.30, 0.30, 0.31], [0.20, 0.20, 0.20], "no searched settings beat kd as published over 3 seeds"),
    ],
)
def test_the_verdict_states_which_candidate_is_better(mine: list[float], theirs: list[float], expected: str) -> None:
    own = study(best=1, seeds=len(mine))
    order = candidates(replicates({3: mine, 1: theirs}), own, [SEARCHED[0], SEARCHED[2]])
    assert verdict(order, own).sentence.startswith(expected)


def test_without_searched_settings_the_verdict_contains_no_comparison() -> None:
    own = study(best=9, seeds=2)
    order = candidates(replicates({1: [0.1, 0.2], 2: [0.3, 0.3]}), own, SEARCHED[:2])
    sentence = "baseline kd is the best of 2 candidates; no searched settings were confirmed"
    assert verdict(order, own).sentence == sentence


def test_the_verdict_states_the_number_of_seeds_for_each_candidate() -> None:
    values = {1: [0.1, 0.3, 0.1, 0.1], 2: [0.5] * 3, 3: [0.2, 0.2, 0.18, 0.4], 5: [0.4] * 3}
    own = study(best=2)
    order = run(values, own, TRIALS).candidates
    assert verdict(order, own).sentence == "no searched settings beat kd as published over 3 to 4 seeds"


def test_the_number_of_seeds_needed_for_a_decision_depends_on_the_number_of_candidates() -> None:
    # By hand: 2^-5 = .031 <= .05 (5/20)^(1/20) = .047; 2^-6 = .0156 <= .0235, <= .0157; 2^-7 = .0078 <= .0119.
    for among, seeds in ((1, 5), (2, 6), (3, 6), (4, 7)):
        outcomes = [PairedComparison((-1.0,) * n, "min", among).outcome for n in range(2, 9)]
        assert outcomes.index("better") + 2 == seeds


def test_an_interval_excludes_zero_after_a_decision_and_is_mirrored_for_the_opposite_direction() -> None:
    own = PairedComparison((-0.1, -0.2, -0.3, -0.15, -0.2, -0.25), "min", 2)
    low, high = own.interval
    assert low < own.difference < high < 0
    assert PairedComparison(tuple(-d for d in own.differences), "max", 2).interval == pytest.approx((-high, -low))
    assert (own.wins, own.outcome) == (6, "better")


def test_the_best_replicate_is_exported() -> None:
    candidate = Candidate(SEARCHED[2], replicates({3: [0.3, 0.1, 0.2]}))
    assert candidate.best(study(best=1)).seed == 2


# --- constraints ------------------------------------------------------------------------------------------------------

AT_MOST = {"constraints": {"val/ece": {"at_most": 0.25}}}  # only trials 4 and 6 above satisfy it, and both are excluded


def with_ece(of: TrialRecord, ece: float) -> TrialRecord:
    return replace(of, epochs=[of.last | {"val/ece": ece}])


def test_trials_that_violate_a_constraint_are_repeated_only_if_all_trials_violate_it() -> None:
    own = study(best=2, seeds=2, **AT_MOST)
    feasible = [*SEARCHED[:6], with_ece(SEARCHED[6], 0.2)]  # 7 is the worst by NLL
    assert {of.number for of in choose_candidates(feasible, own)} == {1, 2, 7}
    assert {of.number for of in choose_candidates(SEARCHED, own)} == {1, 2, 3, 5}, "the nearest two"


def test_candidates_are_ranked_by_their_mean_over_seeds() -> None:
    own = study(best=9, seeds=2, **AT_MOST)
    some = replicates({3: [0.1, 0.2], 5: [0.3, 0.4]})
    lucky = [with_ece(r, ece) for r, ece in zip(some, (0.2, 0.4, 0.1, 0.3), strict=True)]  # means 0.3 and 0.2
    order = candidates(lucky, own, TRIALS[2:])
    assert [c.trial.number for c in order] == [5, 3]
    assert winner_of(order, own) is order[0]
    assert order[0].best(own).seed == 1, "the repeat of seed 2 breaks the constraint"
    assert order[1].broken(own) == ["val/ece 0.3, at most 0.25"]


def test_without_a_feasible_candidate_there_is_no_winner_and_the_closest_candidate_is_named() -> None:
    own = study(best=9, seeds=2, **AT_MOST)
    order = candidates(replicates({3: [0.3, 0.3], 1: [0.5, 0.5]}), own, [SEARCHED[0], SEARCHED[2]])
    assert winner_of(order, own) is None
    sentence = "none of 2 candidates meets the constraints on average over 2 seeds, so none wins; the closest is 003 "
    assert verdict(order, own).sentence == f"{sentence}(val/ece 0.3, at most 0.25)"
    assert why_none_wins(SEARCHED, order, own) == verdict(order, own).sentence
    assert "the closest is 003" in str(why_none_wins(own.rank(SEARCHED), [], own))
    assert why_none_wins(SEARCHED, [], study(best=9)) is None


def test_the_verdict_states_that_a_better_baseline_violates_a_constraint() -> None:
    own, theirs = study(best=9, seeds=5, **AT_MOST), [0.26, 0.28, 0.27, 0.26, 0.27]
    mine = [with_ece(r, 0.1) for r in replicates({3: [value + 0.04 for value in theirs]})]
    order = candidates([*mine, *replicates({1: theirs})], own, [SEARCHED[0], SEARCHED[2]])
    sentence = verdict(order, own).sentence
    assert sentence.startswith("003 is worse than kd as published: nll +0.0400 (90 % confidence interval ")
    assert sentence.endswith("; kd breaks a constraint (val/ece 0.268, at most 0.25)")


# --- error rate and power ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_with_skewed_noise_equal_candidates_are_called_better_in_at_most_5_percent_of_studies() -> None:
    for baselines in ((0.0,), (0.0, 0.0)):
        false, *_ = Race(baselines, (0.0, 0.0, 0.0), 6).report(np.random.default_rng(6), lognormal, 300)
        assert false <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("effects", [(2.0, 0.0, 0.0), (2.0, 2.0, 2.0)])
def test_a_difference_of_two_standard_deviations_is_detected_in_77_percent_of_studies(
    effects: tuple[float, ...],
) -> None:
    false, power, _, cost = Race((0.0,), effects, 6).report(np.random.default_rng(7), normal, 100)
    assert (false, power >= 0.77, cost <= 5) == (0, True, True)
