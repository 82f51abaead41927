"""Sequential confirmation: clearly worse candidates are dropped after each stage until a verdict is reached.

The first stage trains each candidate with three seeds, and each further stage adds one seed. A stage is evaluated only
after all of its replicates have ended, and the replicates are compared in the order of their seeds. The order in which
replicates end therefore does not affect the result. The result depends only on the records, so a confirmation that was
interrupted and resumed gives the same result as an uninterrupted one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev

from ensdistill_tune.analysis.replication import (
    Candidate,
    candidates_on_the_front,
    choose_candidates,
    sort_candidates,
)
from ensdistill_tune.analysis.sequential_test import MOST_PAIRS
from ensdistill_tune.analysis.verdict import best_baseline, compare, searched_among
from ensdistill_tune.records.trial_record import OVER, TrialRecord
from ensdistill_tune.study.study_config import StudyConfig

FIRST_SEEDS = 3  # number of seeds in the first stage
# Deficit in standard errors beyond which a candidate is dropped; chosen by simulation:
# see tests/benchmarks/sequential_power.py
BEHIND = 0.5
ATTEMPTS = 2  # a replicate that fails is repeated once

Replicate = tuple[TrialRecord, int]  # the trial to train again, and the fresh seed


@dataclass(frozen=True)
class Stage:
    """Evaluation of the candidates after one stage.

    Attributes:
        seeds: Number of seeds per remaining candidate.
        leader: Trial number of the best candidate.
        baseline: Trial number of the best baseline; None if there is no baseline.
        difference: Mean difference in the objective (leader minus best baseline) over pairs with the same seed; None if
            there is no baseline, or if the leader is a baseline.
        outcome: Result of the test of the leader against the best baseline: `better`, `worse` or `undecided`.
        dropped: Trial number of the clearly better candidate, keyed by the trial number of the dropped candidate.
    """

    seeds: int
    leader: int
    baseline: int | None = None
    difference: float | None = None
    outcome: str = "undecided"
    dropped: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ConfirmationState:
    """Current state of a confirmation.

    Attributes:
        candidates: All candidates, best first, with the replicates of the completed stages; empty until the first
            stage has completed. If a replicate fails twice, its candidate keeps its completed replicates and is
            excluded from further stages. A candidate that fails in the first stage is omitted.
        stages: The completed stages.
        todo: Replicates of the current stage that have not ended, ordered by seed; empty once the confirmation
            has ended.
        planned: Total number of replicates; until the confirmation has ended, the maximum possible number.
    """

    candidates: Sequence[Candidate] = ()
    stages: Sequence[Stage] = ()
    todo: Sequence[Replicate] = ()
    planned: int = 0


def confirmation_of(
    trials: Sequence[TrialRecord], replicates: Sequence[TrialRecord], study: StudyConfig
) -> ConfirmationState:
    """Returns the state of the confirmation, computed from the records.

    The fresh seeds are the integers that follow the largest seed of the search. All candidates use the same seeds, so
    candidates can be compared seed by seed.

    Args:
        trials: Search trials and baselines.
        replicates: Trials of the confirmation.
        study: The settings.
    """
    chosen = choose_candidates(trials, study)
    results = _Results(replicates)
    left, out = [Candidate(trial, ()) for trial in chosen], list[Candidate]()
    budget, used, stages = study.confirmation.seeds * len(chosen), 0, list[Stage]()
    for seeds in _seeds_of_stages(study) if chosen else ():
        stage = [(c.trial, seed) for seed in seeds for c in left]
        if used + len(stage) > budget:
            break
        if todo := [one for one in stage if results.is_missing(*one)]:
            return ConfirmationState(sort_candidates([*left, *out], study) if stages else [], stages, todo, budget)
        used += len(stage)
        out += [replace(c, failed=True) for c in left if c.replicates and not results.completed(c, seeds)]
        left = [results.extended(c, seeds) for c in left if results.completed(c, seeds)]
        if not left:
            break
        stages.append(_evaluated(left, out, study))
        rivals = stages[-1].dropped
        out += [replace(c, dropped_for=rivals[c.trial.number]) for c in left if c.trial.number in rivals]
        left = [c for c in left if c.trial.number not in rivals]
        if _is_decided(stages[-1], left):
            break
    return ConfirmationState(sort_candidates([*left, *out], study), stages, planned=used)


def _seeds_of_stages(study: StudyConfig) -> list[list[int]]:
    """Returns the seeds of each possible stage."""
    fresh = [study.max_search_seed + 1 + n for n in range(MOST_PAIRS)]
    first = min(FIRST_SEEDS, study.confirmation.seeds)
    return [fresh[:first], *([seed] for seed in fresh[first:])]


class _Results:
    """Results of replicates, keyed by trial number and seed."""

    def __init__(self, replicates: Sequence[TrialRecord]) -> None:
        self._finished: dict[tuple[int | None, int | None], TrialRecord] = {}
        self._without_result: dict[tuple[int | None, int | None], int] = {}
        for one in replicates:
            key = (one.replicate_of, one.seed)
            if one.state == "finished":
                self._finished[key] = one
            elif one.state in OVER:
                times = 1 if one.state == "failed" else ATTEMPTS  # a stopped replicate is not repeated
                self._without_result[key] = self._without_result.get(key, 0) + times

    def is_missing(self, trial: TrialRecord, seed: int) -> bool:
        """Returns whether a replicate has not ended yet, or has failed and will be repeated."""
        key = (trial.number, seed)
        return key not in self._finished and self._without_result.get(key, 0) < ATTEMPTS

    def completed(self, candidate: Candidate, seeds: Sequence[int]) -> bool:
        """Returns whether all replicates of a stage have finished."""
        return all((candidate.trial.number, seed) in self._finished for seed in seeds)

    def extended(self, candidate: Candidate, seeds: Sequence[int]) -> Candidate:
        """Returns the candidate extended by the replicates of one more stage."""
        more = [self._finished[candidate.trial.number, seed] for seed in seeds]
        return replace(candidate, replicates=[*candidate.replicates, *more])


def _evaluated(left: Sequence[Candidate], out: Sequence[Candidate], study: StudyConfig) -> Stage:
    """Returns the evaluation of a stage.

    Args:
        left: The candidates of the stage.
        out: The candidates that have been dropped or have failed.
        study: The settings.
    """
    order = sort_candidates(left, study)
    leader, baseline = order[0], best_baseline(order)
    kept = {c.trial.number for c in (leader, baseline, *candidates_on_the_front(order, study)) if c}
    dropped = {}
    for c in order:
        rival = baseline if baseline and c.trial.baseline else leader
        if c.trial.number not in kept and is_clearly_behind(c, rival, study):
            dropped[c.trial.number] = rival.trial.number
    stage = Stage(len(leader.replicates), leader.trial.number, dropped=dropped)
    if baseline is None:
        return stage
    stage = replace(stage, baseline=baseline.trial.number)
    if leader.trial.baseline:
        return stage
    found = compare(leader, baseline, study, searched_among([*left, *out]))
    outcome = "undecided" if leader.violation(study) else found.outcome
    return replace(stage, difference=found.difference, outcome=outcome)


def _is_decided(stage: Stage, left: Sequence[Candidate]) -> bool:
    """Returns whether the verdict is final: the test has reached a decision, or no candidates are left to compare."""
    searched = [c for c in left if not c.trial.baseline]
    return stage.outcome != "undecided" or not searched or (stage.baseline is None and len(searched) == 1)


def is_clearly_behind(candidate: Candidate, rival: Candidate, study: StudyConfig) -> bool:
    """Returns whether a candidate can be dropped because its mean is clearly worse than that of the rival.

    At least three pairs with the same seed are required. The mean difference must exceed half of its standard error.
    Dropping a candidate by mistake reduces the power of the test, but does not change its error rate.
    """
    sign = 1 if study.mode == "max" else -1
    gains = [sign * d for d in compare(candidate, rival, study).differences]
    return len(gains) >= FIRST_SEEDS and fmean(gains) < -BEHIND * stdev(gains) / len(gains) ** 0.5
